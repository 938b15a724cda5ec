"""A small sweep that is really played: it fails in part, is killed twice, and resumes, in-process and by commands."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from sparring.cli.play import run
from sparring.flows.compose.build import Prepared, build, describe, prepare, read_all_prompts
from sparring.flows.config import JudgeConfig
from sparring.flows.supervise.run_lock import lock_run
from sparring.loop.errors import ConfigError, SparError, StepError
from sparring.loop.round import play
from sparring.store.db import rows
from sparring.store.store import DuckStore
from sparring.sweeps.plan import Plan, Point
from sparring.sweeps.play import play_points
from tests.helpers.kept_store import KeptStore
from tests.helpers.spar import environment
from tests.helpers.sweeps import NAMES, planned, write

pytestmark = pytest.mark.slow

TABLES = {"runs", "rounds", "completions", "judgements", "pairs", "examples", "updates", "update_steps", "evaluations"}


@dataclass(frozen=True)
class Swept:
    folder: Path
    plan: Plan
    played: list[list[str]]  # by time of playing: the runs that were played
    failed: list[dict[str, str]]
    before: dict[str, list[dict[str, Any]]]  # rows when the first attempt had ended


class Killed(BaseException):
    """As a signal would, it ends the sweep where it stands."""


def here(point: Point, store: DuckStore, upto: str | None = None) -> str | None:
    """Play a run in this process; after the step `upto` of round 1 it is killed."""

    def called(step: Any, *args: Any) -> Any:
        done = step(*args)
        if step.__name__ == upto and args[0].index == 1:
            raise Killed
        return done

    prompts = read_all_prompts(point.config)
    try:
        loop = build(Prepared(point.config, describe(point.config, *prompts), *prompts, store))
    except SparError as error:
        return str(error)
    rnd = loop.start
    try:
        while rnd.index <= point.config.rounds:
            rnd = play(rnd, loop.parts, called)
    finally:
        loop.close()
    return None


def contents(store: DuckStore) -> dict[str, list[dict[str, Any]]]:
    clocks = {"runs": "created_at", "updates": "seconds"}
    with store.db.read() as con:
        return {
            t: rows(con, f"SELECT * {f'EXCLUDE ({clocks[t]})' if t in clocks else ''} FROM {t} ORDER BY ALL")
            for t in sorted(TABLES)
        }


@pytest.fixture(scope="module")
def swept(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swept]:
    """The sweep of SWEEP, killed in its last run; then the others, while a model was not there, and when it was."""
    folder = tmp_path_factory.mktemp("sweep")
    os.symlink(tiny, folder / "model")
    plan = planned(folder)
    played: list[list[str]] = []
    failed: list[dict[str, str]] = []

    store = KeptStore(plan.store.db.path)

    def attempt(points: list[Point], upto: dict[str, str]) -> None:
        played.append([])

        def player(point: Point) -> str | None:
            played[-1].append(point.name)
            return here(point, store, upto.get(point.name))

        failed.append(play_points(points, store, player))

    with chdir(folder):
        with pytest.raises(Killed):
            attempt(list(plan.points), {"tiny-sft-kto": "pair"})
        before = contents(store)
        attempt(list(plan.points[:-1]), {})  # the last one is for the command line
        os.symlink(tiny, folder / "copied")
        attempt(list(plan.points[:-1]), {})
        store.close()
        yield Swept(folder, plan, played, failed, before)


def test_a_point_that_fails_is_reported_and_the_others_continue(swept: Swept) -> None:
    assert swept.played[0] == NAMES
    assert list(swept.failed[0]) == ["tiny-copied-dpo", "tiny-copied-kto"]
    assert "copied holds no model" in swept.failed[0]["tiny-copied-dpo"]


def test_nothing_is_played_twice(swept: Swept) -> None:
    assert swept.played[1] == swept.played[2] == ["tiny-copied-dpo", "tiny-copied-kto"]
    after = contents(swept.plan.store)
    for table, kept in swept.before.items():
        assert [row for row in kept if row not in after[table]] == [], f"{table} has lost or changed rows"
    assert len(after["updates"]) == len(swept.before["updates"]) + 2


def test_the_runs_after_the_first_start_from_its_policy(swept: Swept) -> None:
    sql = """SELECT n.name, k.weights_sha256 FROM rounds r JOIN runs n USING (run_id)
        JOIN checkpoints k ON k.checkpoint_id = r.policy_id WHERE r.round = 1 AND name LIKE 'tiny-sft%'
        UNION ALL SELECT 'sft', k.weights_sha256 FROM updates u JOIN runs n USING (run_id)
        JOIN checkpoints k ON k.checkpoint_id = u.after_id WHERE n.name = 'sft'"""
    with swept.plan.store.db.read() as con:
        found = rows(con, sql)
    assert {row["name"] for row in found} == {"sft", "tiny-sft-dpo", "tiny-sft-kto"}
    assert len({row["weights_sha256"] for row in found}) == 1


def test_an_implicit_judge_may_be_made_of_the_policy_of_a_run(swept: Swept) -> None:
    judge = JudgeConfig.model_validate(
        {"kind": "implicit", "policy": "run:sft", "reference": "./model", "canaries": "skip"}
    )
    config = swept.plan.points[0].config.model_copy(update={"name": "judged", "judge": judge})
    with chdir(swept.folder):
        build(prepare(config)).close()
    sql = """SELECT weights_sha256 AS found, (
            SELECT [b.weights_sha256, a.weights_sha256] FROM updates u JOIN runs USING (run_id)
            JOIN checkpoints a ON a.checkpoint_id = u.before_id JOIN checkpoints b ON b.checkpoint_id = u.after_id
            WHERE name = 'sft') AS wanted
        FROM judges WHERE kind = 'implicit'"""
    with swept.plan.store.db.read() as con:
        (row,) = rows(con, sql)
    assert row["found"] == row["wanted"]
    assert len(set(row["wanted"])) == 2


def test_what_needs_a_run_that_failed_is_passed_over(swept: Swept, tmp_path: Path) -> None:
    asked: list[str] = []

    def failing(point: Point) -> str:
        asked.append(point.name)
        return "no luck"

    failed = play_points(swept.plan.points, DuckStore(tmp_path / "none.duckdb"), failing)
    assert asked == NAMES[:3]
    assert list(failed) == NAMES
    assert failed["tiny-sft-dpo"] == failed["tiny-sft-kto"] == "it needs sft, which failed"


# -- the command, which plays what is left

COMMAND = [sys.executable, "-m", "sparring.cli", "run", "loop.yaml", "--sweep", "sweep.yaml", "--no-prefect"]
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="guards need POSIX signals")


def by_command(folder: Path, **options: Any) -> None:
    with chdir(folder):
        run(Path("loop.yaml"), sweep=Path("sweep.yaml"), no_prefect=True, **options)


@POSIX
def test_a_run_that_fails_in_a_process_of_its_own(swept: Swept, capfd: pytest.CaptureFixture[str]) -> None:
    folder = swept.folder / "runs" / swept.plan.points[-1].run
    lock = lock_run(folder)
    said = (
        r"1 of 5 runs failed; the same command plays what is missing\n  tiny-sft-kto: exit code 3: StoreBusy: another"
    )
    with pytest.raises(StepError, match=said) as failed:
        by_command(swept.folder, format="jsonl")
    lock.release()
    assert failed.value.exit_code == 1
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [line["point"] for line in lines] == NAMES
    assert (lines[-1]["rounds"], lines[-1]["round"]) == (0, 0)  # its initial policy was measured
    assert yaml.safe_load((folder / "config.yaml").read_text()) == swept.plan.points[-1].config.resolved()


@POSIX
def test_a_killed_sweep_leaves_nothing_running(swept: Swept) -> None:
    pipe = subprocess.PIPE
    started = subprocess.Popen(COMMAND, cwd=swept.folder, env=environment(), stdout=pipe, stderr=pipe, text=True)
    assert started.stderr is not None
    for line in started.stderr:
        if line.startswith("run tiny-sft-kto"):  # said by the process that plays it
            break
    else:
        pytest.fail("the run never began")
    inner = psutil.Process(started.pid).children(recursive=True)
    assert any("config.yaml" in " ".join(process.cmdline()) for process in inner)
    os.kill(started.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(inner, 60)
    assert alive == []
    assert started.communicate()[0] == ""
    last = swept.plan.points[-1]
    assert not swept.plan.store.complete(last.run, 1)


@POSIX
def test_the_same_command_ends_the_sweep(swept: Swept, capfd: pytest.CaptureFixture[str]) -> None:
    by_command(swept.folder, format="json")
    said = capfd.readouterr()
    assert "5 runs in" in said.err and "1 to play" in said.err and "1 of 1: tiny-sft-kto" in said.err
    found = json.loads(said.out)
    assert [row["point"] for row in found] == NAMES
    assert [(row["start"], row["loss"]) for row in found[:2]] == [("", ""), ("copied", "dpo")]
    assert {(row["rounds"], row["wanted"], row["round"]) for row in found} == {(1, 1, 1)}
    assert {row["run_id"] for row in found} == {point.run for point in swept.plan.points}
    assert all(row["win_low"] <= row["win_rate"] <= row["win_high"] for row in found)
    assert [row["pairs"] is None for row in found] == [True, False, True, False, True]
    assert [row["examples"] is None for row in found] == [False, True, False, True, False]
    assert all(row["seconds"] > 0 for row in found)

    by_command(swept.folder)  # nothing is left to play
    lines = cells(capfd.readouterr().out)
    assert [line[0] for line in lines] == NAMES
    assert lines[3][1:5] == ["sft", "dpo", "1 of 1", "round 1"]
    assert re.fullmatch(r"[01]\.\d{3} \[[01]\.\d{3}, [01]\.\d{3}\]", lines[3][5])


@POSIX
def test_what_was_killed_twice_is_as_if_it_never_was(swept: Swept) -> None:
    """Its rows are those of a run that was not disturbed, but for the ids, in which the run's name is."""
    point = swept.plan.points[-1]
    apart = replace(point, config=point.config.model_copy(update={"name": "undisturbed"}))
    store = KeptStore(swept.plan.store.db.path)
    with chdir(swept.folder):
        assert here(apart, store) is None
    texts = """SELECT c.round, c.text, c.logprobs, c.origin FROM completions c JOIN runs USING (run_id)
        WHERE name = ? ORDER BY ALL"""
    weights = """SELECT u.round, k.weights_sha256 FROM updates u JOIN checkpoints k ON k.checkpoint_id = u.after_id
        JOIN runs ON runs.run_id = u.run_id WHERE name = ? ORDER BY ALL"""
    with store.db.read() as con:
        for sql in (texts, weights):
            mine, other = rows(con, sql, [point.name]), rows(con, sql, ["undisturbed"])
            assert mine == other != []
    store.close()


def test_what_the_command_says(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "grid: {learn.lr: [0.1, 0.2]}\npoints: {long: {rounds: 3}}")
    (tmp_path / "sub").mkdir()
    by_command(tmp_path, dry_run=True, store="sub/s.duckdb")
    said = capfd.readouterr()
    assert list((tmp_path / "sub").iterdir()) == []
    assert "3 runs in" in said.err and "3 to play" in said.err
    assert cells(said.out)[0] == ["tiny-lr-0.1", "0.1", *["-"] * 10]
    assert cells(said.out)[2] == ["tiny-long", "", *["-"] * 10]
    with pytest.raises(ConfigError, match="--format applies to the comparison of a sweep"):
        run(Path("loop.yaml"), format="json")
    with pytest.raises(ConfigError, match=r"there is no sweep file none.yaml; .*docs/sweeps.md"):
        run(tmp_path / "loop.yaml", sweep=Path("none.yaml"))


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if line.startswith("│")]
