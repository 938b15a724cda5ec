"""How fast work goes and when it will be done: pure functions of counts and seconds.

What is not known is None: nothing is guessed from nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sparring.loop.formatting import about, clock, speed


def rate(made: int, seconds: float) -> float | None:
    """Things made a second."""
    return made / seconds if made > 0 and seconds > 0 else None


def time_left(missing: int, per_second: float | None) -> float | None:
    """Seconds until the missing things are made at this rate."""
    return missing / per_second if per_second else None


def run_left(rounds: Sequence[float], spent: float, todo: int) -> float | None:
    """Seconds until `todo` rounds are played, the one being played among them.

    `rounds` are the seconds that whole rounds took, `spent` those of the round being played. A round that takes longer
    than the others did is taken to end at any moment.
    """
    if not rounds or todo <= 0:
        return None
    mean = sum(rounds) / len(rounds)
    return max(0.0, mean - spent) + mean * (todo - 1)


@dataclass(frozen=True, slots=True)
class Work:
    """A piece of work that is being done, since when we watch it, and when it last went on."""

    what: str
    unit: str
    total: int
    began: float
    before: int  # done when we began to watch
    done: int
    at: float  # when `done` was heard of: between two chunks nothing is heard, and the pace stays
    note: str = ""

    def facts(self, now: float) -> list[str]:
        """Count, rate, time spent, time left and note: those that are known."""
        pace = rate(self.done - self.before, self.at - self.began)
        left = time_left(self.total - self.done, pace)
        until = "" if left is None or self.done >= self.total else about(max(0.0, left - (now - self.at)))
        facts = [f"{self.done}/{self.total}", speed(pace, self.unit), clock(now - self.began), until, self.note]
        return [fact for fact in facts if fact]
