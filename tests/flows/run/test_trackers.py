"""What trackers were told, read back from their own files and compared with the store."""

import json
import os
import sqlite3
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from sparring.flows.run.trackers import MAKERS, Point, check_trackers, read_points
from sparring.loop.errors import ConfigError
from sparring.store.store import DuckStore
from tests.helpers.paths import ROOT
from tests.helpers.records import RUN, filled_store
from tests.helpers.spar import python

HERE = [name for name in MAKERS if find_spec(name) is not None]
CONFIG = {"name": "hand", "learn": {"lr": 1e-5, "batch_size": 4}, "trackers": ["tensorboard"], "keep": None}

# As a run does, in a process of its own: the rounds of each session as they are played. When {forgotten}, the last is
# taken from what is remembered, as a kill between logging a round and remembering it would leave it.
SESSION = """
import json
from pathlib import Path
from sparring.flows.run.trackers import LOGGED, Trackers
from sparring.store.store import DuckStore
folder = Path("trackers")
for rounds in {sessions}:
    trackers = Trackers({names}, {run!r}, folder, {config})
    for round in rounds:
        trackers.log_round(DuckStore("store.duckdb"), {run!r}, round)
    trackers.close()
if {forgotten}:
    logged = json.loads((folder / LOGGED).read_text())
    (folder / LOGGED).write_text(json.dumps({{name: round - 1 for name, round in logged.items()}}))
"""


@dataclass(frozen=True)
class Logged:
    """The folder, its store, and what each process wrote to stdout and stderr."""

    folder: Path
    store: DuckStore
    said: list[tuple[str, str]]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    """A process that was killed after round 1; another that logs that again, and round 2, and then nothing new."""
    folder = tmp_path_factory.mktemp("trackers")
    store = filled_store(folder / "store.duckdb").store
    os.environ["TRACKIO_DIR"] = str(folder / "trackio")
    said = []
    for sessions, forgotten in ([[0, 1]], True), ([[2], [1, 2]], False):
        script = SESSION.format(names=HERE, run=RUN, config=CONFIG, sessions=sessions, forgotten=forgotten)
        done = python("-c", script, cwd=folder)
        assert done.code == 0, done.err
        said.append((done.out, done.err))
    del os.environ["TRACKIO_DIR"]
    return Logged(folder, store, said)


# Worked by hand from tests/helpers/records.py: round 1 has two optimizer steps, round 2 one.
STEPS = {0: 0, 1: 2, 2: 3}
LOSSES = {1: 0.75, 2: 0.5, 3: 0.5}
WIN_RATES = {0: 0.5, 2: 0.625, 3: 0.375}
KL = {2: 0.25, 3: 0.5}


def test_points_have_the_optimizer_steps_of_the_whole_run(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "store.duckdb").store
    points = list(read_points(store, RUN, 0, 2))
    assert [p.step for p in points] == [0, 1, 2, 3]
    assert {p.step: p.values["learn/loss"] for p in points if "learn/loss" in p.values} == LOSSES
    assert {p.step: p.values["evaluate/win_rate"] for p in points if "evaluate/win_rate" in p.values} == WIN_RATES
    assert {p.step: p.values["evaluate/kl"] for p in points if "evaluate/kl" in p.values} == KL
    assert points[2].values["evaluate/win_rate_low"] == pytest.approx(0.525)
    assert {p.values["round"]: p.step for p in points if "round" in p.values} == STEPS
    assert list(read_points(store, RUN, 2, 2)) == points[3:]  # whichever session asks
    assert list(read_points(store, RUN, 3, 3)) == []
    assert list(read_points(store, "none", 0, 2)) == []


def expected(logged: Logged) -> dict[tuple[int, str], float]:
    points: list[Point] = list(read_points(logged.store, RUN, 0, 2))
    return {(p.step, name): value for p in points for name, value in p.values.items()}


@pytest.mark.slow
@pytest.mark.skipif("tensorboard" not in HERE, reason="tensorboard is not installed")
def test_tensorboard_shows_the_numbers_of_the_store_once(logged: Logged) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    top = logged.folder / "trackers" / "tensorboard"
    assert [p.name for p in top.iterdir()] == [RUN]
    assert [p for p in (top / RUN).iterdir() if p.is_dir()] == []  # no run but this one
    shown = EventAccumulator(str(top / RUN))
    shown.Reload()
    events = [(e.step, tag, e.value) for tag in shown.Tags()["scalars"] for e in shown.Scalars(tag)]
    assert {(step, tag): value for step, tag, value in events} == pytest.approx(expected(logged), rel=1e-6)
    assert len(events) == len(expected(logged))
    text = shown.Tensors("config/text_summary")
    assert [e.step for e in text] == [0]
    assert b"learn.lr: 1e-05" in text[0].tensor_proto.string_val[0]


@pytest.mark.skipif("trackio" not in HERE, reason="trackio is not installed")
def test_trackio_has_the_numbers_of_the_store_once(logged: Logged) -> None:
    with sqlite3.connect(logged.folder / "trackio" / "sparring.db") as con:
        found = con.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
        config = json.loads(con.execute("SELECT config FROM configs").fetchone()[0])
        assert con.execute("SELECT count(*) FROM system_metrics").fetchone() == (0,)
    con.close()
    assert [(run, step) for run, step, _ in found] == [(RUN, step) for step in range(4)]
    values = {(step, name): value for _, step, metrics in found for name, value in json.loads(metrics).items()}
    assert values == pytest.approx(expected(logged))
    assert config["learn.lr"] == 1e-5


@pytest.mark.skipif("wandb" not in HERE, reason="wandb is not installed")
def test_wandb_has_the_numbers_of_the_store_offline(logged: Logged) -> None:
    """A session is a folder of its own; they are one run when they are synced, and a step logged again is one step."""
    sessions = sorted((logged.folder / "trackers" / "wandb").glob("offline-run-*"))
    assert len(sessions) == 2
    histories = []
    for folder in sessions:
        records = list(wandb_records(folder / f"run-{RUN}.wandb"))
        runs = [r.run for r in records if r.WhichOneof("record_type") == "run"]
        assert {(r.run_id, r.project, r.display_name) for r in runs} == {(RUN, "sparring", RUN)}
        assert {u.key: u.value_json for u in runs[0].config.update}["learn.batch_size"] == "4"
        histories.append([r.history for r in records if r.WhichOneof("record_type") == "history"])
    assert [[h.step.num for h in history] for history in histories] == [[0, 1, 2], [1, 2, 3]]
    values = {
        (h.step.num, "/".join(item.nested_key) or item.key): json.loads(item.value_json)
        for history in histories
        for h in history
        for item in h.item
    }
    kept = {key: value for key, value in values.items() if not key[1].startswith("_")}
    assert kept == pytest.approx(expected(logged))


def wandb_records(file: Path) -> Iterator[Any]:
    """The records of W&B's file: LevelDB's log format (blocks of 32 KiB, chunks with a header of 7 bytes)."""
    from wandb.proto import wandb_internal_pb2

    data, at, record = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield wandb_internal_pb2.Record.FromString(record)
            record = b""


@pytest.mark.slow
def test_trackers_write_nothing_to_stdout(logged: Logged) -> None:
    assert [out for out, _ in logged.said] == ["", ""]
    assert [err for _, err in logged.said if "Traceback" in err] == []


def test_what_is_remembered_is_the_last_round_of_each(logged: Logged) -> None:
    assert json.loads((logged.folder / "trackers" / "logged.json").read_text()) == dict.fromkeys(HERE, 2)
    assert list((logged.folder / "trackers").glob("*.new")) == []


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"there is no tracker 'tensorbord' \(did you mean 'tensorboard'\?\)"):
        check_trackers(["tensorbord"])
    check_trackers([])


@pytest.mark.slow
def test_a_tracker_that_is_not_installed_is_refused_with_the_way_to_get_it(tmp_path: Path) -> None:
    """In a Python that has every package of this one, but not tensorboard."""
    for place in map(Path, sys.path):
        for entry in place.iterdir() if place.is_dir() and place.name == "site-packages" else ():
            if not entry.name.startswith("tensorboard") and not (tmp_path / entry.name).exists():
                (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / "tensorboard").mkdir()  # a folder of that name, such as W&B makes, is no package
    script = f"""
import sys
sys.path[:] = [{str(ROOT)!r}, {str(tmp_path)!r}, *(p for p in sys.path if "site-packages" not in p)]
from sparring.flows.run.trackers import check_trackers
from sparring.loop.errors import EnvironmentProblem
try:
    check_trackers(["tensorboard"])
except EnvironmentProblem as error:
    print(error)
"""
    said = python("-c", script, cwd=tmp_path)
    assert said.out == "trackers: tensorboard is not installed; pip install 'sparring[tensorboard]'\n", said.err
