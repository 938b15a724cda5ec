"""What values an option may take, said once: in the signature of the function whose option it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from sparring.loop.errors import ConfigError


@dataclass(frozen=True)
class Range:
    wanted: str
    holds: Callable[[float], bool]


Positive = Annotated[float, Range("a number above 0", lambda x: 0 < x < inf)]
NotNegative = Annotated[float, Range("a number of 0 or more", lambda x: 0 <= x < inf)]
Smoothing = Annotated[float, Range("a number of 0 or more and below 0.5", lambda x: 0 <= x < 0.5)]
Noise = Annotated[float, Range("a number above 0 and below 0.5", lambda x: 0 < x < 0.5)]
Inside = Annotated[float, Range("a number above 0 and below 1", lambda x: 0 < x < 1)]
UpToOne = Annotated[float, Range("a number above 0 and at most 1", lambda x: 0 < x <= 1)]


def check_values(what: str, name: str, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse an option's value that the function's signature does not allow, with ConfigError."""
    hints = get_type_hints(function, include_extras=True)
    for option, value in options.items():
        check_value(f"{what} {name!r}: {option}", hints[option], value)


def check_value(what: str, annotation: Any, value: Any) -> None:
    wanted, fits = _fit(annotation, value)
    if not fits:
        raise ConfigError(f"{what} is {value!r}; it must be {wanted}")


def _fit(annotation: Any, value: Any) -> tuple[str, bool]:
    if annotation is bool:
        return "true or false", isinstance(value, bool)
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(get_args(annotation))}", value in get_args(annotation)
    allowed: Range = get_args(annotation)[1]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return allowed.wanted, number and allowed.holds(value)
