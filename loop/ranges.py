"""What values an option may take, said once: in the signature of the function, or in the fields of the dataclass."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from math import inf, isfinite
from types import NoneType
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
Share = Annotated[float, Range("a number from 0 to 1", lambda x: 0 <= x <= 1)]
BelowOne = Annotated[float, Range("a number of 0 or more and below 1", lambda x: 0 <= x < 1)]
AboveOne = Annotated[float, Range("a number above 1", lambda x: 1 < x < inf)]
OneOrMore = Annotated[float, Range("a number of 1 or more", lambda x: x >= 1)]
PositiveOrInf = Annotated[float, Range("a number above 0", lambda x: x > 0)]
NotNegativeOrInf = Annotated[float, Range("a number of 0 or more", lambda x: x >= 0)]
Count = Annotated[int, Range("a whole number of 1 or more", lambda x: x >= 1 and isinstance(x, int))]

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


def check_fields(record: Any, prefix: str = "") -> None:
    """Refuse a dataclass's value that its field's annotation does not allow, with ConfigError."""
    hints = get_type_hints(type(record), include_extras=True)
    for field in fields(record):
        check_value(prefix + field.name, hints[field.name], getattr(record, field.name))


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
    args = get_args(annotation)
    if len(args) == 2 and args[1] is NoneType:
        expected, fits = _fit(args[0])
        return f"{expected}, or none", lambda value: value is None or fits(value)
    bounds = [each for each in args if isinstance(each, Range)]
    if bounds:
        return bounds[0].expected, lambda value: _is_number(value) and bounds[0].holds(value)
    return "anything", lambda value: True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
