"""What values an option may take, said once: in the signature of the function whose option it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from sparring.loop.errors import ConfigError


@dataclass(frozen=True)
class Range:
    expected: str
    holds: Callable[[float], bool]


Positive = Annotated[float, Range("a number above 0", lambda x: 0 < x < inf)]
NotNegative = Annotated[float, Range("a number of 0 or more", lambda x: 0 <= x < inf)]
Smoothing = Annotated[float, Range("a number of 0 or more and below 0.5", lambda x: 0 <= x < 0.5)]
Noise = Annotated[float, Range("a number above 0 and below 0.5", lambda x: 0 < x < 0.5)]
Inside = Annotated[float, Range("a number above 0 and below 1", lambda x: 0 < x < 1)]
UpToOne = Annotated[float, Range("a number above 0 and at most 1", lambda x: 0 < x <= 1)]

Fit = tuple[str, Callable[[Any], bool]]
PLAIN: Mapping[Any, Fit] = {
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    float: ("a number", lambda value: _is_number(value) and isfinite(value)),
    str: ("text", lambda value: isinstance(value, str)),
}


def check_values(what: str, name: str, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse an option's value that the function's signature does not allow, with ConfigError.

    Of an annotation that is not known here, or none, any value is taken.
    """
    hints = get_type_hints(function, include_extras=True)
    for option, value in options.items():
        check_value(f"{what} {name!r}: {option}", hints.get(option), value)


def check_value(what: str, annotation: Any, value: Any) -> None:
    expected, fits = _fit(annotation)
    if not fits(value):
        raise ConfigError(f"{what} is {value!r}; it must be {expected}")


def _fit(annotation: Any) -> Fit:
    if annotation in PLAIN:
        return PLAIN[annotation]
    if get_origin(annotation) is Literal:
        choices = get_args(annotation)
        return f"one of {', '.join(map(str, choices))}", lambda value: value in choices
    bounds = [each for each in get_args(annotation) if isinstance(each, Range)]
    if bounds:
        return bounds[0].expected, lambda value: _is_number(value) and bounds[0].holds(value)
    return "anything", lambda value: True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
