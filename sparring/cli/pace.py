"""How fast work progresses and when it will be done: pure functions of counts and seconds.

What is unknown is None.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sparring.loop.formatting import about, clock, speed


def rate(made: int, seconds: float) -> float | None:
    """Things made per second."""
    return made / seconds if made > 0 and seconds > 0 else None


def time_left(missing: int, per_second: float | None) -> float | None:
    """Seconds until the missing things are made, at this rate."""
    return missing / per_second if per_second else None


def run_left(rounds: Sequence[float], spent: float, todo: int) -> float | None:
    """Seconds until `todo` rounds are played, including the current one.

    `rounds` are the seconds of whole rounds, `spent` those of the current round so far. A round that takes longer than
    the mean is expected to end at any moment.
    """
    if not rounds or todo <= 0:
        return None
    mean = sum(rounds) / len(rounds)
    return max(0.0, mean - spent) + mean * (todo - 1)


@dataclass(frozen=True, slots=True)
class Work:
    """A piece of work in progress: its counts, and the times at which they were seen."""

    what: str
    unit: str
    total: int
    began: float
    before: int  # done when we began to count
    done: int
    at: float  # when `done` last changed; between two chunks the pace stays the same
    note: str = ""

    def facts(self, now: float) -> list[str]:
        """Count, rate, time spent, time left and note, as far as they are known."""
        pace = rate(self.done - self.before, self.at - self.began)
        left = time_left(self.total - self.done, pace)
        until = "" if left is None or self.done >= self.total else about(max(0.0, left - (now - self.at)))
        facts = [f"{self.done}/{self.total}", speed(pace, self.unit), clock(now - self.began), until, self.note]
        return [fact for fact in facts if fact]
