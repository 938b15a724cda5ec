"""Options by keyword: what a config may say is what a function's signature takes."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from sparring.loop.errors import ConfigError


def option_names(function: Callable[..., Any], skip: int = 0) -> list[str]:
    return list(inspect.signature(function).parameters)[skip:]


def nearest(name: str, known: Iterable[str]) -> str:
    """' (did you mean x?)' or nothing."""
    close = get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def check_options(
    what: str, name: str, function: Callable[..., Any], options: Mapping[str, Any], *, skip: int = 0
) -> None:
    """Refuse an option that `function` does not take, and the lack of one that it needs.

    The first `skip` parameters are not options.
    """
    known = option_names(function, skip)
    for option in sorted(options.keys() - set(known)):
        takes = ", ".join(known) or "none"
        raise ConfigError(f"{what} {name!r} has no option {option!r}{nearest(option, known)}; it takes {takes}")
    for option, parameter in list(inspect.signature(function).parameters.items())[skip:]:
        if parameter.default is parameter.empty and option not in options:
            raise ConfigError(
                f"{what} {name!r} needs the option {option!r}, and it is not given; set it beside the kind"
            )
