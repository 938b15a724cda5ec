"""A time limit for each step of a round."""

from collections.abc import Iterator, Sequence
from functools import wraps
from typing import Any

from sparring.flows.config import Step, Steps
from sparring.flows.supervise.guard import Guard, beat
from sparring.flows.supervise.leaving import leave_if_asked
from sparring.loop.parts import OnChunk, Run, call
from sparring.loop.types import Record


def limited(guard: Guard, steps: Steps, run: Run = call) -> Run:
    """A `run` for loop.round.play with a limit for each attempt at a step, which raises StepTimeout."""

    def within(step: Run, *args: Any) -> Any:
        limits: Step = getattr(steps, step.__name__)

        @wraps(step)
        def timed(*args: Any) -> Any:
            leave_if_asked()
            with guard.limit(step.__name__, timeout=limits.timeout, stall=steps.stall):
                return step(*args)

        return run(timed, *args)

    return within


def beating(on_chunk: OnChunk) -> OnChunk:
    """An `on_chunk` that reports progress when a chunk is made, and when it is stored; the run may leave then."""
    return lambda step, total, chunks: _beat(on_chunk(step, total, chunks))


def _beat(chunks: Iterator[Sequence[Record]]) -> Iterator[Sequence[Record]]:
    for chunk in chunks:
        beat()
        yield chunk
        beat()
        leave_if_asked()
