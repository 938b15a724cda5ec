"""Numbers as people read them, in commands, reports and on Prefect's pages. A missing number is a dash."""

from collections.abc import Callable

PERCENT = "\u00a0%"  # the space does not break


def decimals(value: float | None, digits: int = 3) -> str:
    """A number with that many digits after the point."""
    return "-" if value is None else f"{value:.{digits}f}"


def significant(value: float | None, missing: str = "-") -> str:
    """A number with four significant digits; a whole number below a million has all of its digits."""
    if value is None:
        return missing
    return f"{int(value)}" if value == int(value) and abs(value) < 1e6 else f"{value:.4g}"


def percent(value: float | None, missing: str = "-") -> str:
    """A share: 62.5 %."""
    return missing if value is None else f"{100 * value:.1f}{PERCENT}"


def interval(
    value: float | None, low: float | None, high: float | None, show: Callable[[float | None], str] = decimals
) -> str:
    """A value with its 95 % interval where there is one: 0.625 [0.525, 0.725], or 62.5 % [52.5, 72.5]."""
    if value is None or low is None or high is None:
        return show(value)
    return f"{show(value)} [{show(low).removesuffix(PERCENT)}, {show(high).removesuffix(PERCENT)}]"


def size(n: float) -> str:
    """Bytes in decimal units: 12.3 MB."""
    for unit in ("bytes", "kB", "MB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} GB"


def duration(seconds: float | None, missing: str = "-") -> str:
    """Time spent: 12.3 s, 4.5 min or 6.7 h."""
    if seconds is None:
        return missing
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def clock(seconds: float) -> str:
    """Time spent, as a watch shows it: 0:07, 12:40, 1:02:03."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def about(seconds: float | None) -> str:
    """Time left, no more exact than it is known: about 5 min left. "" when it is unknown."""
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
    """A rate with three digits, per second, minute or hour, whichever reads best; "" when it is unknown."""
    if per_second is None:
        return ""
    for name, seconds in (("s", 1), ("min", 60), ("h", 3600)):
        if per_second * seconds >= 0.95 or name == "h":
            break
    rate = per_second * seconds
    return f"{rate:.{0 if rate >= 100 else 1 if rate >= 10 else 2}f} {unit}/{name}".replace(" /", "/")


def cut(text: str, limit: int) -> str:
    """A text of at most `limit` characters, with an ellipsis where it was longer."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
