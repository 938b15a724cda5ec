"""A sweep's file: the runs to play first and the points of a grid, each as changes to one config."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path
from typing import Any

import yaml

from sparring.loop.errors import ConfigError
from sparring.loop.options import nearest
from sparring.sweeps.comparison import COLUMNS

KEYS = ("first", "grid", "points")

Changes = Mapping[str, Any]  # dotted keys of a config, or whole sections, and their values


@dataclass(frozen=True)
class Draft:
    """A run in a sweep's file. `name` is the whole name of a run under `first`, else a suffix of the config's name."""

    name: str
    changes: Changes
    first: bool = False
    config: Path | None = None  # a config other than the sweep's
    labels: Mapping[str, str] = field(default_factory=dict)  # by axis


@dataclass(frozen=True)
class _Value:
    """A value on an axis: its label, its part of a run's name, and its changes."""

    label: str
    part: str
    changes: Changes


def read_sweep(path: Path) -> list[Draft]:
    """The runs of a sweep in the order of its file. Raises ConfigError."""
    values = _read(path)
    axes = {str(axis): _axis(str(axis), given) for axis, given in _mapping(values.get("grid"), "grid").items()}
    _refuse_clashes(axes)
    drafts = [*_firsts(values.get("first"), path.parent), *(_cells(axes) if axes else ()), *_points(values, axes)]
    if all(draft.first for draft in drafts):
        raise ConfigError(f"{path} has no points; add grid: {{learn.beta: [0.1, 0.5]}}, or points:")
    return drafts


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise ConfigError(f"there is no sweep file {path}; docs/sweeps.md describes its format")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    values = _mapping(values, str(path))
    for key in values:
        if key not in KEYS:
            raise ConfigError(f"{path}: unknown key {key!r}{nearest(str(key), KEYS)}; expected {', '.join(KEYS)}")
    return values


def _firsts(value: Any, folder: Path) -> Iterator[Draft]:
    for name, changes in _mapping(value, "first").items():
        kept = dict(_changes(changes, f"first.{name}"))
        file = kept.pop("config", None)
        yield Draft(str(name), kept, first=True, config=None if file is None else folder / str(file))


def _cells(axes: Mapping[str, list[_Value]]) -> Iterator[Draft]:
    for cell in product(*axes.values()):
        changes = {key: value for place in cell for key, value in place.changes.items()}
        labels = dict(zip(axes, (place.label for place in cell), strict=True))
        yield Draft("-".join(place.part for place in cell), changes, labels=labels)


def _points(values: Mapping[str, Any], axes: Mapping[str, Any]) -> Iterator[Draft]:
    for label, changes in _mapping(values.get("points"), "points").items():
        yield Draft(_plain(str(label)), _changes(changes, f"points.{label}"), labels=dict.fromkeys(axes, ""))


def _axis(name: str, places: Any) -> list[_Value]:
    """The values of an axis: a list has values of the key that names the axis, a mapping has labels with changes."""
    if name in COLUMNS:
        raise ConfigError(f"grid.{name}: {name} is a column of the comparison; rename the axis")
    if isinstance(places, Mapping) and places:
        return [_Value(str(k), _plain(str(k)), _changes(v, f"grid.{name}.{k}")) for k, v in places.items()]
    if not isinstance(places, list) or not places:
        raise ConfigError(f"grid.{name} is {places!r}; expected a list of values, or labels with changes to the config")
    return [_of_key(name, value) for value in places]


def _of_key(key: str, value: Any) -> _Value:
    if isinstance(value, list | Mapping):
        form = f"{{{key}: {{LABEL: {{{key}: ...}}}}}}"
        cannot = f"grid.{key} has the value {value!r}, which cannot be a name"
        raise ConfigError(f"{cannot}; give each value a label: {form}")
    label = value if isinstance(value, str) else json.dumps(value)
    return _Value(label, _plain(f"{key.rpartition('.')[2]}-{label}"), {key: value})


def _changes(mapping: Any, where: str) -> Changes:
    changes = {str(key): value for key, value in _mapping(mapping, where).items()}
    for key in {"name", "store"} & changes.keys():
        raise ConfigError(f"{where} changes {key}, which the sweep itself sets; leave it out")
    return changes


def _mapping(value: Any, where: str) -> Mapping[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} holds {value!r}; expected a mapping such as {{learn.beta: 0.1}}")
    return value


def _plain(text: str) -> str:
    """The text with only characters that a run's name may have."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-")


def _refuse_clashes(axes: Mapping[str, list[_Value]]) -> None:
    keys = {axis: {key for place in places for key in place.changes} for axis, places in axes.items()}
    for one, other in combinations(axes, 2):
        if both := sorted(keys[one] & keys[other]):
            raise ConfigError(f"the axes {one} and {other} of grid both set {both[0]}; remove it from one of them")
