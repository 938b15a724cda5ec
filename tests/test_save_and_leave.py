"""Asked to save and leave in the middle of an update, or as a command, and resumed: the run is an undisturbed one."""

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.kill_and_resume import contents, prepare
from sparring.flows.compose import build
from sparring.flows.config import read_config
from sparring.flows.run.rounds import operate
from sparring.flows.supervise.guard import Guard
from sparring.loop.errors import SavedAndLeft
from tests.helpers.paths import ROOT
from tests.helpers.spar import environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SET = "learn.save_seconds=3600"  # so that only the request saves anything


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("leave"), "dpo", "transformers")


@pytest.fixture(scope="module")
def undisturbed(config: Path) -> Path:
    store = config.parent / "whole" / "store.duckdb"
    play(config, store)
    return store


def play(config: Path, store: Path, leave_at: int = 0) -> list[int]:
    """Play all rounds, asked to leave in optimizer step `leave_at` of the first update; returns the steps taken."""
    steps: list[int] = []

    def progress(done: int, total: int, loss: float) -> None:
        steps.append(done)
        if len(steps) == leave_at:
            os.kill(os.getpid(), signal.SIGUSR1)

    ready = build.prepare(read_config(config, [SET, f"store={store}"]))
    with Guard(), closing(build.build(ready, progress=progress)) as loop:
        operate(loop, ready.config.rounds)
    return steps


def test_an_update_goes_on_after_the_step_that_was_taken(config: Path, undisturbed: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.duckdb"
    with pytest.raises(SavedAndLeft):
        play(config, store, leave_at=2)
    assert len([*tmp_path.rglob("update*.safetensors")]) == 1  # policy and optimizer after two steps
    steps = play(config, store)
    assert steps[:2] == [3, 4]
    assert contents(store) == contents(undisturbed)


def test_the_command_says_how_to_resume(config: Path, undisturbed: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.duckdb"
    command = [sys.executable, "-m", "sparring.cli"]
    arguments = ["run", str(config), "--set", SET, "--store", str(store), "--no-prefect"]
    run = subprocess.Popen([*command, *arguments], cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    first = next(line for line in run.stderr if line.startswith("run kills-"))
    run.send_signal(signal.SIGUSR1)
    said = run.stderr.read()
    run_id = first.split()[1]
    assert run.wait() == 75 and f"spar resume {run_id}" in said
    again = [*command, "resume", run_id, "--store", str(store), "--no-prefect"]
    subprocess.run(again, cwd=ROOT, env=environment(), check=True, capture_output=True)
    assert contents(store) == contents(undisturbed)
