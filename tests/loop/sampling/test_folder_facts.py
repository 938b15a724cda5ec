"""What an engine reads from a model folder."""

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from sparring.loop.learning.checkpoint import save_model
from sparring.loop.sampling.folder_facts import UNLIMITED, kind, positions, text_class, unknown_ids
from sparring.loop.tokens import Template
from tests.helpers.tiny import build_tiny_model, write_tokenizer
from tests.helpers.zoo import config_of, make

END = 257


def folder(path: Path, name: str, **changes: object) -> str:
    """A folder with the tokenizer of 258 tokens and the config of a tiny model, without weights."""
    write_tokenizer(path)
    config = config_of(name)
    for key, value in changes.items():
        setattr(config, key, value)
    config.save_pretrained(path)
    return str(path)


@pytest.mark.parametrize(("name", "limit"), [("llama", 512), ("gpt2", 512), ("mpt", 512), ("gemma3", 512)])
def test_positions_by_whatever_name_and_wherever_nested(name: str, limit: int, tmp_path: Path) -> None:
    assert positions(folder(tmp_path, name)) == limit


def test_a_model_without_positions_has_no_limit(tmp_path: Path) -> None:
    assert positions(folder(tmp_path, "mamba", max_position_embeddings=None)) == UNLIMITED


def test_ids_beyond_the_tokenizer_are_unknown(tmp_path: Path) -> None:
    assert unknown_ids(folder(tmp_path / "padded", "llama", vocab_size=320)) == tuple(range(258, 320))
    assert unknown_ids(folder(tmp_path / "whole", "llama")) == ()


@pytest.mark.parametrize(
    ("settings", "ends"), [({"eos_token_id": [65, 66]}, {65, 66, END}), ({"eos_token_id": 65}, {65, END}), ({}, {END})]
)
def test_end_ids_are_the_tokenizers_and_the_generation_configs(
    settings: dict[str, object], ends: set[int], tmp_path: Path
) -> None:
    model = build_tiny_model(tmp_path)
    (model / "generation_config.json").write_text(json.dumps(settings))
    assert Template.of(str(model)).end_ids == ends


def test_end_ids_are_in_the_config_where_there_is_no_generation_config(tmp_path: Path) -> None:
    assert Template.of(folder(tmp_path, "llama", eos_token_id=[65, 70])).end_ids == {65, 70, END}


def test_the_language_model_of_a_family_has_a_class_of_its_own(tmp_path: Path) -> None:
    assert text_class(folder(tmp_path / "family", "gemma3")) == "Gemma3ForCausalLM"
    assert text_class(folder(tmp_path / "text", "gemma3_text")) is None


def test_the_checkpoints_of_a_run_are_of_one_kind_and_another_model_is_not(tmp_path: Path) -> None:
    for name in ("gpt2", "gemma3", "qwen3_moe"):
        first = make(tmp_path / name, name)
        save_model(AutoModelForCausalLM.from_pretrained(first), first, tmp_path / f"{name} saved")
        assert kind(str(first)) == kind(str(tmp_path / f"{name} saved"))
    assert kind(str(tmp_path / "gpt2")) != kind(str(tmp_path / "gemma3"))
