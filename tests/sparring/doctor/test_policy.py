"""What `spar doctor --config` says of a policy."""

import json
from pathlib import Path

import pytest
import yaml

from sparring.doctor import policy
from tests.helpers import zoo
from tests.helpers.chat_templates import THINKING, build_with


def config(folder: Path, model: Path, **sample: object) -> Path:
    values = {
        "name": "checked",
        "store": str(folder / "store.duckdb"),
        "policy": {"model": str(model)},
        "prompts": {"train": "train.jsonl", "eval": "eval.jsonl"},  # not read: the policy is what is looked at
        "sample": {"engine": "transformers", **sample},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return folder / "config.yaml"


@pytest.mark.parametrize(
    ("architecture", "attention", "layout"),
    [
        ("llama", "sdpa", "a prompt is computed once"),
        ("gemma2", "eager", "a prompt"),
        ("lfm2", "sdpa", "one completion"),
    ],
)
def test_how_a_policy_is_computed(architecture: str, attention: str, layout: str, tmp_path: Path) -> None:
    found, context, tokens = policy.examine(config(tmp_path, zoo.make(tmp_path / "model", architecture)))
    assert found.ok and f"{attention} attention; {layout}" in found.found and "transformers" in found.found
    assert context.ok and "512 tokens" in context.found
    assert tokens.ok and "'<|im_end|>'" in tokens.found


def test_what_a_model_cannot_is_a_finding(tmp_path: Path) -> None:
    model = build_with(tmp_path / "model", THINKING, tokens=("<think>", "</think>"))
    settings = json.loads((model / "config.json").read_text(encoding="utf-8")) | {"max_position_embeddings": 64}
    (model / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    _, context, tokens = policy.examine(config(tmp_path, model, max_tokens=64))
    assert not context.ok and "max_tokens (64)" in context.remedy
    assert "<think> and </think>" in tokens.found


def test_a_policy_that_is_not_there_is_a_finding(tmp_path: Path) -> None:
    (found,) = policy.examine(config(tmp_path, tmp_path / "nowhere"))
    assert not found.ok and "nowhere" in found.found
