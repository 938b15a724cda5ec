"""Rounds logged to TensorBoard, W&B and trackio, by accelerate's classes.

The values are read from the store after each round, so a resumed run logs what it has not logged yet, and nothing
twice.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from typing import Any

from sparring.loop.errors import ConfigError, EnvironmentProblem
from sparring.loop.options import nearest
from sparring.store.db import rows
from sparring.store.store import DuckStore

PROJECT = "sparring"  # one project for all runs, so that they can be compared
LOGGED = "logged.json"
Values = dict[str, bool | float | str]


@dataclass(frozen=True, slots=True)
class Point:
    """The values to log at one step, which counts optimizer steps since the run began."""

    step: int
    values: Mapping[str, float]


def check_trackers(names: Sequence[str]) -> None:
    """Raises ConfigError for an unknown tracker, EnvironmentProblem for a package that is not installed."""
    for name in names:
        if name not in MAKERS:
            raise ConfigError(f"there is no tracker {name!r}{nearest(name, MAKERS)}; choose one of {', '.join(MAKERS)}")
        try:
            version(name)
        except PackageNotFoundError as error:
            raise EnvironmentProblem(f"trackers: {name} is not installed; pip install 'sparring[{name}]'") from error


class Trackers:
    """The trackers of one run. Their files go to `folder`, except trackio's, which go to trackio's own folder.

    `config` is logged too. Raises what `check_trackers` raises.
    """

    def __init__(self, names: Sequence[str], run_id: str, folder: Path, config: Mapping[str, Any]) -> None:
        check_trackers(names)
        self.names, self.run_id, self.folder = tuple(dict.fromkeys(names)), run_id, folder
        self.config: Values = dict(_flat(config))
        self._open: dict[str, Any] = {}

    def log_round(self, store: DuckStore, run_id: str, round: int) -> None:
        """Log the training and evaluation metrics of this round, and of earlier rounds that are not logged yet."""
        for name in self.names:
            last = self._logged().get(name, -1)
            if last >= round:
                continue
            points = list(read_points(store, run_id, last + 1, round))
            with redirect_stdout(StringIO()):  # trackers print, and stdout is for data
                self._log(name, points, first=last < 0)
            self._remember(name, round)

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].finish()

    def _log(self, name: str, points: Sequence[Point], *, first: bool) -> None:
        if not points:
            return
        if name not in self._open:
            self._open[name] = MAKERS[name](self.run_id, self.folder, points[0].step, self.config)
            self._open[name].start()
        tracker = self._open[name]
        if first and name == "tensorboard":  # accelerate's own method would add two empty runs
            text = "".join(f"    {key}: {value}\n" for key, value in self.config.items())
            tracker.log({"config": text}, step=points[0].step)
        last_step = _last_step(name, self.run_id)
        for point in points:
            if point.step > last_step:
                tracker.log(dict(point.values), step=point.step)
        if name != "wandb":  # wandb streams to one file; the others write to disk when they finish
            self._open.pop(name).finish()

    def _logged(self) -> dict[str, int]:
        """The last logged round of each tracker."""
        file = self.folder / LOGGED
        rounds: dict[str, int] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        return rounds

    def _remember(self, name: str, round: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self.folder / f"{LOGGED}.new"
        new.write_text(json.dumps(self._logged() | {name: round}), encoding="utf-8")
        new.replace(self.folder / LOGGED)


def read_points(store: DuckStore, run_id: str, first: int, last: int) -> Iterator[Point]:
    """The points of rounds first..last in order: one per step; evaluations are at the last step of their round."""
    with store.db.read() as con:
        steps = rows(
            con,
            """SELECT u.round, s.metrics FROM update_steps s JOIN updates u USING (update_id)
            WHERE u.run_id = ? AND u.round <= ? ORDER BY u.round, s.step""",
            [run_id, last],
        )
        measured = rows(
            con,
            """SELECT e.round, e.metric, e.value, e.low, e.high
            FROM evaluations e LEFT JOIN updates u USING (run_id, round)
            WHERE e.run_id = ? AND e.round BETWEEN ? AND ? AND e.candidate_id = coalesce(u.after_id, e.candidate_id)
            ORDER BY e.round, e.metric""",
            [run_id, first, last],
        )
    step = sum(row["round"] < first for row in steps)
    for round in range(first, last + 1):
        learned = [_learned(json.loads(row["metrics"])) for row in steps if row["round"] == round]
        evaluated = _evaluated([row for row in measured if row["round"] == round])
        for values in learned[:-1]:
            step += 1
            yield Point(step, values)
        step += bool(learned)
        if end := {**(learned[-1] if learned else {}), **evaluated}:
            yield Point(step, {"round": round, **end})


def _learned(metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"learn/{name}": value for name, value in metrics.items()}


def _evaluated(rows_of_round: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Each metric, and the bounds of its 95 % interval if it has one."""
    ends = (("", "value"), ("_low", "low"), ("_high", "high"))
    return {f"evaluate/{e['metric']}{end}": e[key] for e in rows_of_round for end, key in ends if e[key] is not None}


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | float | str]]:
    """Nested keys joined by dots, with values of types that every tracker accepts."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value if isinstance(value, bool | int | float | str) else json.dumps(value)


def _last_step(name: str, run_id: str) -> int:
    """The last step that the tracker has; a kill may have come between logging a round and recording that."""
    if name != "trackio":
        return -1  # TensorBoard hides repeated steps (purge_step), and W&B merges them when it syncs
    from trackio.sqlite_storage import SQLiteStorage

    step = SQLiteStorage.get_max_step_for_run(PROJECT, run_id)
    return -1 if step is None else int(step)


def _tensorboard(run_id: str, folder: Path, step: int, config: Values) -> Any:
    from accelerate.tracking import TensorBoardTracker

    return TensorBoardTracker(run_id, folder / "tensorboard", purge_step=step)


def _wandb(run_id: str, folder: Path, step: int, config: Values) -> Any:
    from accelerate.tracking import WandBTracker

    os.environ.setdefault("WANDB_MODE", "offline")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    settings = {"console": "off", "silent": True, "disable_git": True, "save_code": False}
    folder.mkdir(parents=True, exist_ok=True)
    return WandBTracker(
        PROJECT, name=run_id, id=run_id, dir=str(folder), resume="allow", config=config, settings=settings
    )


def _trackio(run_id: str, folder: Path, step: int, config: Values) -> Any:
    import trackio
    from accelerate.tracking import TrackioTracker

    quiet = {"embed": False, "auto_log_cpu": False, "auto_log_gpu": False}
    tracker = TrackioTracker(PROJECT, name=run_id, resume="allow", config=config, **quiet)
    tracker.finish = trackio.finish  # it also forgets the run, which accelerate's method would end again at exit
    return tracker


MAKERS: dict[str, Callable[[str, Path, int, Values], Any]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
}
