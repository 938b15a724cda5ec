"""PPO, really killed: policy, critic and both optimizers are what they are in an undisturbed run, round after round."""

import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.kill_and_resume import contents, finish, prepare, trial
from sparring.store.db import Database, rows

pytestmark = pytest.mark.slow

KEPT = (
    "critic/model.safetensors",
    "critic/value_head.safetensors",
    "trainer/policy.safetensors",
    "trainer/critic.safetensors",
)


def checkpoints(store: Path) -> list[Path]:
    with Database(store).read() as con:
        found = rows(con, "SELECT path FROM checkpoints JOIN updates ON after_id = checkpoint_id ORDER BY round")
    return [Path(row["path"]) for row in found]


@pytest.mark.timeout(300)
def test_killed_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config = prepare(tmp_path, "ppo", "transformers")
    whole = tmp_path / "whole" / "store.duckdb"
    began = time.monotonic()
    finish("run", str(config), "--store", str(whole))
    seconds = time.monotonic() - began
    wanted = contents(whole)
    assert len(wanted["updates"]) == 2 and wanted["examples"] and not wanted["pairs"]
    # Imports and round 0 take the first half.
    trial(config, tmp_path / "kill", 0.8 * seconds, None, wanted)
    for one, two in zip(checkpoints(whole), checkpoints(tmp_path / "kill" / "store.duckdb"), strict=True):
        for name in KEPT:
            first, second = load_file(one / name), load_file(two / name)
            assert first and all(torch.equal(first[key], second[key]) for key in first)
