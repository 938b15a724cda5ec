"""A person's own parts in a config: where their names stand, and the source that stands for them in a run's id."""

from collections.abc import Iterator, Mapping
from typing import Any

from sparring.loop.registry import own_label

# Where a name stands: the keys to it, and the entry points that it may be one of. A list has a name in each entry.
PLACES = (
    (("judge", "kind"), "sparring.judges"),
    (("evaluate", "judge", "kind"), "sparring.judges"),
    (("pair", "kind"), "sparring.builders"),
    (("pair", "filters", "kind"), "sparring.filters"),
    (("learn", "loss"), "sparring.losses"),
    (("learn", "loss", "kind"), "sparring.losses"),
    (("learn", "modifiers", "kind"), "sparring.modifiers"),
    (("learn", "regularisers", "kind"), "sparring.regularisers"),
)


def with_sources(shape: dict[str, Any]) -> dict[str, Any]:
    """What shapes a run, with the name and source of a person's own part where its path stood.

    So the run is the same where the file lies elsewhere, and another one when what the part does has changed.
    """
    for keys, group in PLACES:
        for section, key in _sections(shape, keys):
            section[key] = own_label(section[key], group)
            if group == "sparring.judges":
                _label_parts(section)
    return shape


def _sections(shape: Any, keys: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], str]]:
    """The sections that have a name under the last key."""
    if isinstance(shape, list):
        for each in shape:
            yield from _sections(each, keys)
    elif isinstance(shape, dict) and keys[0] in shape:
        if len(keys) > 1:
            yield from _sections(shape[keys[0]], keys[1:])
        elif isinstance(shape[keys[0]], str):
            yield shape, keys[0]


def _label_parts(judge: Mapping[str, Any]) -> None:
    """The judges that a judge is made of."""
    for option in judge.values():
        for part in option if isinstance(option, list) else [option]:
            if isinstance(part, dict) and isinstance(part.get("kind"), str):
                part["kind"] = own_label(part["kind"], "sparring.judges")
                _label_parts(part)
