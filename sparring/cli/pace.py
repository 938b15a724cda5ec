"""How fast work goes and when it will be done: pure functions of counts and seconds, and how people read them.

What is not known is None: nothing is guessed from nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass


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


def clock(seconds: float) -> str:
    """As a watch shows it: 0:07, 12:40, 1:02:03."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def about(seconds: float | None) -> str:
    """As a person would say it, and no more exact than it is known; "" when it is not."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"about {max(1, round(seconds))} s left"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"about {minutes} min left"
    hours, minute = divmod(minutes, 60)
    if hours < 24:
        return f"about {hours} h {minute} min left" if minute else f"about {hours} h left"
    days, hour = divmod(round(minutes / 60), 24)
    return f"about {days} d {hour} h left" if hour else f"about {days} d left"


def speed(per_second: float | None, unit: str) -> str:
    """A rate in three digits, by the minute or hour where that reads better; "" when it is not known."""
    if per_second is None:
        return ""
    for name, seconds in (("s", 1), ("min", 60), ("h", 3600)):
        if per_second * seconds >= 0.95 or name == "h":
            break
    return f"{_three_digits(per_second * seconds)} {unit}/{name}".replace(" /", "/")


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


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
