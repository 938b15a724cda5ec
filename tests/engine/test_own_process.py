"""An engine in a process of its own leaves nothing behind, however the process that started it ends."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.helpers.paths import ROOT
from tests.helpers.zoo import make

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

HOLDER = """
import sys, time
from pathlib import Path
from sparring.loop.learning.checkpoint import weights_sha256
from sparring.loop.sampling.vllm_engine import Engine
from sparring.loop.types import Checkpoint

folder = Path(sys.argv[1])
engine = Engine(context=128, dtype="float32", max_seqs=4, log=folder / "engine.log")
engine.load(Checkpoint("checkpoint", "run", str(folder), None, weights_sha256(folder)))
print("ready", flush=True)
time.sleep(600)
"""


def test_the_engine_ends_with_a_killed_parent(tmp_path: Path) -> None:
    folder = make(tmp_path / "olmo2", "olmo2")
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder, holder.stdout:
        assert "ready" in holder.stdout.read(6)
        children = psutil.Process(holder.pid).children(recursive=True)
        engines = [child for child in children if "EngineCore" in " ".join(child.cmdline())]
        holder.kill()
    assert len(engines) == 1
    deadline = time.monotonic() + 10
    while any(e.is_running() and e.status() != psutil.STATUS_ZOMBIE for e in engines):
        assert time.monotonic() < deadline, "the engine outlives the run"
        time.sleep(0.1)
