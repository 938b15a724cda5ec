"""Real runs that are killed, scheduled, looked at, and joined by another, while they are live."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kill_and_resume import ROOT, contents, prepare, trial
from sparring.store.db import Database, rows
from tests.helpers.cores import CORES, one_core
from tests.helpers.prefect_server import prefect_at, until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


def spar(*arguments: str, core: int | None = None) -> "subprocess.Popen[str]":
    bound = {} if core is None else one_core(core)
    return subprocess.Popen(
        [sys.executable, "-m", "sparring.cli", *arguments],
        cwd=ROOT,
        env=os.environ | bound,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def by_run(store: Path, run: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of one run, without what names the run or hangs on its name."""
    with Database(store).read() as con:
        run_id = rows(con, "SELECT run_id FROM runs WHERE name = ?", [run])[0]["run_id"]
        counted = {
            t: rows(con, f"SELECT count(*) AS n FROM {t} WHERE run_id = ?", [run_id])
            for t in ("completions", "pairs", "outcomes", "evaluations", "updates", "rounds")
        }
        texts = rows(
            con, "SELECT prompt_id, round, sample, text FROM completions WHERE run_id = ? ORDER BY ALL", [run_id]
        )
        judged = rows(
            con,
            "SELECT count(*) AS n FROM judgements JOIN completions USING (completion_id) WHERE run_id = ?",
            [run_id],
        )
    return counted | {"texts": texts, "judged": judged}


@dataclass(frozen=True)
class Scheduled:
    """What a scheduled run played, undisturbed and on one core."""

    config: Path
    store: Path
    run: dict[str, Any]
    artifacts: list[dict[str, Any]]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Scheduled:
    folder = tmp_path_factory.mktemp("alone")
    config, store = prepare(folder), folder / "whole" / "store.duckdb"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in one_core(CORES[0]).items():
            patch.setenv(name, value)
        with prefect_at(folder) as prefect:
            commands = [
                ["deploy", str(config), "--interval", "15s", "--active", "--rounds", "2", "--store", str(store)]
            ]
            ((code, made, errors),) = prefect.spar_many(commands, folder)
            assert code == 0, errors
            prefect.deployments["kills"] = made.split()[1]
            prefect.start_worker()

            def ended() -> list[dict[str, Any]]:
                return [run for run in prefect.runs_of("kills") if run["end_time"]]

            until(lambda: any(run["start_time"] for run in prefect.runs_of("kills")), patience=120)
            # Now, not when it has ended: the next run of the schedule waits for that, and would begin round 3.
            prefect.ask(f"/deployments/{prefect.deployments['kills']}/pause_deployment", {})
            until(lambda: len(ended()) >= 1, patience=300)
            played = Scheduled(config, store, ended()[0], prefect.ask("/artifacts/filter", {"limit": 200}))
    return played


def test_a_schedule_starts_a_run_by_itself(alone: Scheduled) -> None:
    """On a real server and worker; test_scheduled.py has one run after the other play one round each."""
    assert (alone.run["state_type"], alone.run["auto_scheduled"]) == ("COMPLETED", True)
    assert alone.run["state"]["message"].endswith("2 rounds are done")
    assert {each["key"].rpartition("-")[2] for each in alone.artifacts} >= {"rounds", "round", "report"}


def test_killed_and_resumed(alone: Scheduled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The short form of benchmarks/kill_and_resume.py: a real run, really killed (pitfall 48)."""
    wanted = contents(alone.store)
    assert len(wanted["updates"]) == 2 and wanted["pairs"]
    for name, value in one_core(CORES[0]).items():
        monkeypatch.setenv(name, value)
    # Late enough that the engine has sampled: the last part of a run is its rounds.
    trial(alone.config, tmp_path / "kill", 0.75 * alone.run["total_run_time"], None, wanted)


def test_two_runs_one_store_and_a_reader(alone: Scheduled, tmp_path: Path) -> None:
    """Both runs end with the rows they have alone; a reader is answered all the while (pitfall: rows lost to locks)."""
    config, shared = alone.config, tmp_path / "shared" / "store.duckdb"
    live = [
        spar(
            "run",
            str(config),
            "--no-prefect",
            "--store",
            str(shared),
            "--set",
            f"name=run{k}",
            core=CORES[k % len(CORES)],
        )
        for k in range(2)
    ]
    answers = 0
    while any(process.poll() is None for process in live):
        if shared.exists():
            asked = spar("sql", "SELECT * FROM round_summary", "--format", "json", "--store", str(shared))
            out, errors = asked.communicate(timeout=120)
            if "Table with name round_summary does not exist" not in errors:  # the file is there before its first table
                assert asked.returncode == 0, errors
                json.loads(out)
                answers += 1
        time.sleep(0.5)
    for process in live:
        _, errors = process.communicate()
        assert process.returncode == 0, errors[-3000:]
    assert answers > 3
    wanted = by_run(alone.store, "kills")
    assert wanted["texts"] and wanted["pairs"][0]["n"]
    for k in range(2):
        found = by_run(shared, f"run{k}")
        assert found == wanted  # ids differ with the name; what was sampled, paired, learned and counted does not
