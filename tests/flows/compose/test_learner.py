"""The section `learn`, checked before anything loads."""

from pathlib import Path
from typing import Any

import pytest

from sparring.flows.compose.learner import check_learner
from sparring.flows.config import Config, parse_config
from sparring.loop.errors import ConfigError


def config(model: Path | str, lora: Any) -> Config:
    prompts = {"train": "train.jsonl", "eval": "eval.jsonl"}
    return parse_config({"name": "x", "policy": {"model": str(model)}, "prompts": prompts, "learn": {"lora": lora}}, "")


def test_adapters_that_cannot_be_merged_are_refused_where_the_model_is_here(tiny: Path) -> None:
    check_learner(config(tiny, {"r": 4}))
    check_learner(config("some-org/not-here", {"targets": ["lm_head"]}))
    with pytest.raises(ConfigError, match=r"learn\.lora\.targets.*lm_head"):
        check_learner(config(tiny, {"targets": ["lm_head"]}))
