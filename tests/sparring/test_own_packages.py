"""A project may have packages called flows, loop, store and judges: only `sparring` is installed."""

import json
from pathlib import Path

import pytest

from tests.helpers.own_packages import own_packages
from tests.helpers.spar import python

pytestmark = pytest.mark.slow


def test_commands_and_imports_work_beside_packages_of_the_same_names(tiny: Path, tmp_path: Path) -> None:
    own_packages(tmp_path)
    rows = [{"prompt": f"Say {word}.", "regex": f"[{word[0]}-z]"} for word in ("a", "h", "p")]
    for name, part in (("train", rows[:2]), ("eval", rows[2:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    config = {
        "name": "beside",
        "rounds": 1,
        "policy": {"model": str(tiny)},
        "prompts": {"train": "train.jsonl", "eval": "eval.jsonl"},
        "sample": {"n": 4, "max_tokens": 8, "engine": "transformers"},
        "learn": {"batch_size": 2},
    }
    (tmp_path / "loop.yaml").write_text(json.dumps(config))  # JSON is YAML
    listed = python("-m", "sparring.cli", "--help", cwd=tmp_path)
    assert listed.code == 0 and " resume " in listed.out
    imported = python("-c", "import sparring; print(sparring.Config.__module__)", cwd=tmp_path)
    assert imported.out.strip() == "sparring.flows.config.config"
    played = python("-m", "sparring.cli", "run", "loop.yaml", cwd=tmp_path)  # with Prefect's flow, and a guard
    assert played.code == 0, played.err
    assert "beside" in played.out
