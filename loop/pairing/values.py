"""Checks of option values, made before anything is built. Each raises ConfigError."""

from math import inf, isnan

from sparring.loop.errors import ConfigError


def number(name: str, value: float, low: float = -inf, high: float = inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or isnan(value) or not low <= value <= high:
        raise ConfigError(f"{name} is {value!r}; expected a number{_range(low, high)}")


def whole(name: str, value: int, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ConfigError(f"{name} is {value!r}; expected a whole number{_range(low, inf)}")


def switch(name: str, value: bool) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r}; expected true or false")


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; expected one of {', '.join(choices)}")


def band(low: float, high: float | None, least: float = -inf, most: float = inf) -> float:
    """The upper end of the band [low, high]; infinity if `high` is None."""
    number("low", low, least, most)
    if high is None:
        return inf
    number("high", high, least, most)
    if high < low:
        raise ConfigError(f"low is {low:g} and high is {high:g}; expected low to be at most high")
    return high


def _range(low: float, high: float) -> str:
    if low == -inf and high == inf:
        return ""
    if high == inf:
        return f" of {low:g} or more"
    return f" from {low:g} to {high:g}"
