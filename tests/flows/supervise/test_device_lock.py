"""Accelerators with invented names, and processes that want them."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sparring.flows.supervise.device_lock import lock_devices, lock_path
from sparring.flows.supervise.processes import openers
from sparring.loop.errors import EnvironmentProblem
from tests.helpers.paths import ROOT
from tests.helpers.spar import environment

pytestmark = pytest.mark.slow

HOLD = """
import sys, time
from pathlib import Path
from sparring.flows.supervise.device_lock import lock_devices
held = lock_devices(sys.argv[2:], folder=Path(sys.argv[1]), say=lambda text: print(text, flush=True))
print("held", flush=True)
time.sleep(1000)
"""


def holder(folder: Path, *names: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", HOLD, str(folder), *names]
    return subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_second_process_waits_until_the_first_is_dead(tmp_path: Path) -> None:
    """It names who it waits for; one that wants another device does not wait."""
    first = holder(tmp_path, "GPU-a", "GPU-b")
    second = other = None
    try:
        assert line(first) == "held"
        assert openers([lock_path(tmp_path, "GPU-a")])[lock_path(tmp_path, "GPU-a")].pid == first.pid
        second, other = holder(tmp_path, "GPU-c", "GPU-b"), holder(tmp_path, "GPU-d")
        assert line(other) == "held"
        waiting = line(second)
        assert f"pid {first.pid}" in waiting and "GPU-b" in waiting
        first.kill()
        assert line(second) == "held"
    finally:
        for process in (first, second, other):
            if process is not None:
                process.kill()
                process.communicate()


def test_devices_are_taken_in_one_order_and_given_back(tmp_path: Path) -> None:
    """Two that want the same two, named in another order, both come to their turn."""
    turns: list[int] = []

    def take(names: list[str]) -> None:
        for _ in range(3):
            held = lock_devices(names, folder=tmp_path)
            turns.append(len(names))
            held.close()

    threads = [threading.Thread(target=take, args=(names,), daemon=True) for names in (["b", "a"], ["a", "b"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert turns == [2] * 6


def test_a_cpu_takes_nothing(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has an accelerator")
    lock_devices(folder=tmp_path / "locks").close()
    assert not (tmp_path / "locks").exists()


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="XDG_STATE_HOME"):
        lock_devices(["GPU-a"], folder=tmp_path / "file")
