"""The learning rate of an update that resumes after it was killed."""

import warnings
from typing import Any


def forward(schedule: Any, steps: int) -> None:
    """Advance the learning rate by `steps` steps that an earlier process took."""
    with warnings.catch_warnings():
        # torch warns that the schedule steps before the optimizer, whose steps were taken by the killed process.
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
        for _ in range(steps):
            schedule.step()
