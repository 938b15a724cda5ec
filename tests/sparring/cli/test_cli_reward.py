"""`spar reward train` as a person has it: on Prefect, again, and what status and resume say of it."""

import json
from pathlib import Path

import pytest

from tests.helpers.reward_pairs import write_pairs
from tests.helpers.spar import spar, spar_many
from tests.helpers.tiny import build_tiny_model

pytestmark = pytest.mark.slow

CONFIG = """\
name: rm
model: ./tiny
pairs: {train: pairs.jsonl, held_out: 0.3}
train: {freeze: backbone, pooling: answer_mean, epochs: 3, batch_size: 8, dtype: float32}
"""


@pytest.mark.timeout(240)
def test_train_look_and_train_again(tmp_path: Path) -> None:
    build_tiny_model(tmp_path / "tiny")
    write_pairs(tmp_path / "pairs.jsonl", 40)
    (tmp_path / "rm.yaml").write_text(CONFIG)
    first = spar("reward", "train", "rm.yaml", "--json", cwd=tmp_path)  # as a Prefect flow
    assert first.code == 0, first.err
    told = json.loads(first.out)
    assert {row["metric"] for row in told["held_out"]} >= {"accuracy", "longer_wins"}
    assert (Path(told["model"]) / "reward.json").exists()
    again, status, resume, changed = spar_many(
        ("reward", "train", "rm.yaml", "--no-prefect", "--json"),
        ("status", "rm", "--json"),
        ("resume", "rm"),
        ("reward", "train", "rm.yaml", "--set", "train.epochs=4"),
        cwd=tmp_path,
    )
    assert (again.code, json.loads(again.out)) == (0, told)
    assert json.loads(status.out)["model"] == told["model"]
    assert (resume.code, "spar reward train CONFIG" in resume.err) == (2, True)
    assert (changed.code, "train.epochs: 4" in changed.err) == (2, True)
