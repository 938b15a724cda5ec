"""The learning rate of an update that goes on from where it was killed."""

import warnings
from typing import Any


def forward(schedule: Any, steps: int) -> None:
    """Put the learning rate where it was after `steps` steps that an earlier process took."""
    with warnings.catch_warnings():
        # torch warns that the schedule steps before the optimizer: its steps were taken by the killed process.
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
        for _ in range(steps):
            schedule.step()
