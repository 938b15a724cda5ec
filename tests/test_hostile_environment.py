"""Whatever stands in the environment, a run gives the rows and the weights that it gives in a clean one."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kill_and_resume import contents, prepare
from tests.helpers.paths import ROOT
from tests.helpers.spar import environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HOSTILE = {
    "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_MIXED_PRECISION": "fp16",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16", "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE",
    "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7",
}  # fmt: skip


def play(config: Path, store: Path, rounds: int, **variables: str) -> str:
    """Play up to a round; returns what was said to stderr."""
    command = [
        sys.executable,
        "-m",
        "sparring.cli",
        "run",
        config,
        "--store",
        store,
        "--no-prefect",
        "--rounds",
        rounds,
    ]
    env = environment() | variables
    done = subprocess.run(list(map(str, command)), cwd=ROOT, env=env, capture_output=True, timeout=200, check=False)
    said = done.stderr.decode()
    assert done.returncode == 0, said
    return said


def test_rows_and_weights_are_those_of_a_clean_environment(tmp_path: Path) -> None:
    """The second round is played with other threads and in another locale than the first."""
    config = prepare(tmp_path, "dpo", "transformers")
    clean, hostile = (tmp_path / name / "store.duckdb" for name in ("clean", "hostile"))
    said = play(config, clean, 2, OMP_NUM_THREADS="1")
    assert "taken out" not in said and "threads" not in said

    first = play(config, hostile, 1, **HOSTILE, OMP_NUM_THREADS="1", LC_ALL="tr_TR.UTF-8")
    named = set(next(line for line in first.splitlines() if "taken out" in line).replace(",", " ").split())
    assert named >= HOSTILE.keys() - {"TZ", "PYTHONHASHSEED"}
    second = play(config, hostile, 2, OMP_NUM_THREADS="2", LC_ALL="C", PYTHONHASHSEED="8")
    assert "began with 1 threads and was given 2" in second

    wanted = contents(clean)
    assert len(wanted["updates"]) == 2 and len({row["weights_sha256"] for row in wanted["checkpoints"]}) == 3
    found = contents(hostile)
    assert [table for table in wanted if found[table] != wanted[table]] == []
