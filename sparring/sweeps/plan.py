"""From a sweep's file to its runs, all of them checked before the first one is played."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparring.flows.compose.build import prepare
from sparring.flows.compose.checkpoints import policy_folder, run_named
from sparring.flows.compose.judge_factory import every, models_of
from sparring.flows.config import Config, parse_config, put, read_yaml, verdict_options
from sparring.loop.errors import ConfigError, DataError
from sparring.store.store import DuckStore
from sparring.sweeps.sweep_file import Changes, Draft, read_sweep

LONGEST = 200  # characters of a run's name, which names a folder


@dataclass(frozen=True)
class Point:
    """A run of a sweep. Runs under `first` have no labels."""

    config: Config
    run: str  # its id
    labels: Mapping[str, str]  # by axis

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def needs(self) -> frozenset[str]:
        """Names of the runs whose policies this run starts from or is judged by."""
        sections = [self.config.judge, *([self.config.evaluate.judge] if self.config.evaluate.judge else [])]
        judges = [each for section in sections for each in every(section)]
        models = [self.config.policy.model, *(model for judge in judges for model in models_of(judge))]
        return frozenset(name for name in map(run_named, models) if name is not None)


@dataclass(frozen=True)
class Plan:
    points: Sequence[Point]  # in the order in which they are played
    axes: Sequence[str]
    store: DuckStore


def plan_sweep(config: Path, file: Path, overrides: Sequence[str] = ()) -> Plan:
    """The runs of a sweep over a config with `overrides`. Raises ConfigError with every problem."""
    values = read_yaml(config, overrides)
    base = parse_config(values, str(config))
    drafts = read_sweep(file)
    problems: dict[str, list[str]] = defaultdict(list)  # by message: the runs with that problem
    points = []
    for draft in drafts:
        name = draft.name if draft.first else f"{base.name}-{draft.name}"
        try:
            points.append(_point(draft, name, values, base.store, file))
        except (ConfigError, DataError) as error:
            problems[str(error)].append(name)
    if problems:
        lines = (f"{', '.join(names)}: {message}" for message, names in problems.items())
        raise ConfigError(f"{file} cannot be played:\n" + "\n".join(lines))
    store = DuckStore(base.store)
    compared = [point for point, draft in zip(points, drafts, strict=True) if not draft.first]
    _refuse_same_names(points)
    _refuse_unknown_runs(points, store)
    _refuse_different_measures(compared)
    return Plan(points, list(compared[0].labels), store)


def _point(draft: Draft, name: str, values: Mapping[str, Any], store: str, file: Path) -> Point:
    start = values if draft.config is None else read_yaml(draft.config)
    changed = changed_by(start, draft.changes, file) | {"name": name, "store": store}
    config = parse_config(changed, f"{file}, a run of it,")
    if len(name) > LONGEST:
        raise ConfigError(f"a name of {len(name)} characters is too long, expected {LONGEST} at most; shorten labels")
    if config.approve:
        raise ConfigError("approve is true, but a sweep cannot wait for a decision; set approve: false")
    return Point(config, prepare(config).info.id, draft.labels)


def changed_by(values: Mapping[str, Any], changes: Changes, file: Path) -> dict[str, Any]:
    """A config's values with changes. Whole sections come first, so that the order of keys within them is free."""
    changed = deepcopy(dict(values))
    for key in sorted(changes, key=lambda key: key.count(".")):
        put(changed, key, deepcopy(changes[key]), f"{file}: {key}")
    return changed


def _refuse_same_names(points: Sequence[Point]) -> None:
    names = [point.name for point in points]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"several runs of the sweep have the name {twice[0]}; give their values different labels")


def _refuse_unknown_runs(points: Sequence[Point], store: DuckStore) -> None:
    """Raise ConfigError when a run needs one that is neither played before it nor in the store."""
    names = [point.name for point in points]
    for at, point in enumerate(points):
        for name in sorted(point.needs - set(names[:at])):
            if name in names:
                needs = f"{point.name} needs run:{name}, which is not played before it"
                raise ConfigError(f"{needs}; put {name} under first")
            policy_folder(f"run:{name}", store)


def _refuse_different_measures(points: Sequence[Point]) -> None:
    """Raise ConfigError when runs to compare are measured differently."""
    by_measure = {repr(_measure(point.config)): point.name for point in points}
    if len(by_measure) > 1:
        one, other, *_ = by_measure.values()
        raise ConfigError(
            f"{one} and {other} would be measured by different judges or on different prompts, so their results "
            "cannot be compared; set evaluate.judge in the config, and leave prompts.eval and evaluate.pass_at alone"
        )


def _measure(config: Config) -> Any:
    eval_judge = config.evaluate.judge or config.judge
    return verdict_options(eval_judge.model_dump(mode="json")), config.prompts.eval, config.evaluate.pass_at
