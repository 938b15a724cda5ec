"""From YAML to a config, with mistakes told one a line."""

from collections.abc import Mapping, Sequence
from os.path import relpath
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from sparring.flows.config.config import Config
from sparring.loop.errors import ConfigError
from sparring.loop.options import nearest

Parsed = TypeVar("Parsed", bound=BaseModel)


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The config in a YAML file, with `section.key=value` overrides. Raises ConfigError, one line a mistake."""
    return parse_config(read_yaml(path, overrides), str(path))


def read_yaml(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The mapping in a YAML file, with overrides."""
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"there is no config file {file}; write one with: spar init")
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file} holds a {type(values).__name__}; expected keys such as name, policy, prompts")
    for change in overrides:
        override(values, change)
    return beside(values, file.parent)  # type: ignore[no-any-return]


def beside(value: Any, folder: Path) -> Any:
    """The files of own parts (`./file.py:name`) that lie beside a config, as paths from the working folder."""
    if isinstance(value, list):
        return [beside(each, folder) for each in value]
    if isinstance(value, dict):
        return {k: _path(v, folder) if k in ("kind", "loss") else beside(v, folder) for k, v in value.items()}
    return value


def _path(value: Any, folder: Path) -> Any:
    file, found, name = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not found or not file.endswith(".py") or not (folder / file).is_file():
        return beside(value, folder)
    return f"{relpath(folder / file)}:{name}"


def parse_config(values: Mapping[str, Any], where: str) -> Config:
    return parse_model(Config, values, where)


def parse_model(model: type[Parsed], values: Mapping[str, Any], where: str) -> Parsed:
    """Raises ConfigError, one line a mistake."""
    try:
        return model.model_validate(with_queries(_numbers(values)))
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(problem, model)}" for problem in error.errors())
        raise ConfigError(f"{where} is not a valid config:\n{problems}") from error


def override(values: dict[str, Any], change: str) -> None:
    """Set `section.key=value` in a config's values."""
    key, found, value = change.partition("=")
    if not found or not key:
        raise ConfigError(f"--set {change!r} has no value; write it as section.key=value, e.g. learn.beta=0.2")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {change!r}: the value is not YAML: {error}") from error
    put(values, key, parsed, f"--set {change!r}")


def put(values: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set `section.key` in a config's values; sections that are not there are made."""
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{where}: {section} is a value, not a section")
    values[last] = value


def with_queries(values: Any) -> Any:
    """Queries that are named by their file, as the text in it: a run stands for what is asked, whatever its name."""
    if not isinstance(values, Mapping):
        return values
    found = dict(values)
    for name in ("pair", "prompts", "stop"):
        section = found.get(name)
        query = section.get("query") if isinstance(section, Mapping) else None
        if isinstance(query, str) and query.endswith(".sql"):
            if not Path(query).is_file():
                raise ConfigError(f"{name}.query is {query}, and there is no such file; give one, or the SQL itself")
            found[name] = {**found[name], "query": Path(query).read_text(encoding="utf-8")}
    return found


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads 1e-5 as text (it wants 1.0e-5); people write 1e-5."""
    if isinstance(value, Mapping):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    if isinstance(value, str) and value[:1].isdigit() and "e" in value.lower():
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _section(annotation: Any) -> type[BaseModel]:
    """The model of a section, also of one that may be left out (X | None)."""
    found: type[BaseModel] = next((a for a in get_args(annotation) if a is not type(None)), annotation)
    return found


def _explain(problem: Mapping[str, Any], model: type[BaseModel]) -> str:
    where = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        for part in (p for p in problem["loc"][:-1] if isinstance(p, str)):
            model = _section(model.model_fields[part].annotation)
        known = list(model.model_fields)
        return f"{where}: unknown key{nearest(str(problem['loc'][-1]), known)}; there are {', '.join(known)}"
    if problem["type"] == "missing":
        return f"{where}: missing; it has no default"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    return f"{where}: found {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
