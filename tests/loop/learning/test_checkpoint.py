"""Model folders: one set of weights, generation settings byte for byte, and the form of a multimodal family."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from sparring.loop.errors import DataError
from sparring.loop.learning.checkpoint import load_model, save_model, weight_files, weights_sha256
from sparring.loop.learning.critic import Critic
from tests.helpers.families import FAMILIES, build_family
from tests.helpers.shards import shard
from tests.helpers.tiny import build_tiny_model

CPU = torch.device("cpu")
IDS = torch.tensor([[7, 8, 9, 10, 50, 60, 70, 80, 65, 66, 67, 68, 90, 91, 92, 93, 94, 95, 96, 97]])

ODD = {
    "greedy beside a temperature": '{"do_sample": false, "temperature": 0.6, "top_p": 0.9}',
    "beams": '{"num_beams": 1, "length_penalty": 2.0, "early_stopping": true}',
    "two ends": '{\n  "eos_token_id": [257, 256],\n  "max_length": 4096, "temperature": 1.0\n}\n\n',
    "unknown": '{"cache_implementation": "hybrid", "some_future_setting": {"x": 1}, "_from_model_config": true}',
    "null": '{"temperature": null, "top_k": null, "do_sample": false}',
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return build_tiny_model(tmp_path / "model")


def logprobs(loaded: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = loaded(input_ids=IDS).logits.log_softmax(-1)
    return found


def learned(folder: Path) -> torch.nn.Module:
    """The model of a folder with other weights."""
    loaded: torch.nn.Module = load_model(folder, CPU)
    with torch.no_grad():
        for i, parameter in enumerate(loaded.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)), alpha=0.05)
    return loaded


# --- generation_config.json -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_settings_of_generation_are_taken_over_byte_for_byte(model: Path, tmp_path: Path, text: str) -> None:
    (model / "generation_config.json").write_text(text)
    (model / "preprocessor_config.json").write_text('{"image_size": 28}')
    loaded = learned(model)
    before = getattr(loaded, "generation_config").to_dict()  # noqa: B009  (no attribute of an nn.Module)
    save_model(loaded, model, tmp_path / "one")
    assert getattr(loaded, "generation_config").to_dict() == before  # noqa: B009
    save_model(load_model(tmp_path / "one", CPU), tmp_path / "one", tmp_path / "two")
    for folder in ("one", "two"):
        assert (tmp_path / folder / "generation_config.json").read_text() == text
        assert (tmp_path / folder / "preprocessor_config.json").read_text() == '{"image_size": 28}'
    assert torch.equal(logprobs(load_model(tmp_path / "two", CPU)), logprobs(loaded))


def test_a_model_without_settings_gets_none(model: Path, tmp_path: Path) -> None:
    (model / "generation_config.json").unlink()
    save_model(learned(model), model, tmp_path / "saved")
    assert not (tmp_path / "saved" / "generation_config.json").exists()


def test_settings_of_generation_in_the_config_are_no_obstacle(model: Path, tmp_path: Path) -> None:
    """As old models have them."""
    config = json.loads((model / "config.json").read_text())
    (model / "generation_config.json").unlink()
    (model / "config.json").write_text(json.dumps(config | {"do_sample": False, "temperature": 0.6, "top_p": 0.9}))
    loaded = learned(model)
    save_model(loaded, model, tmp_path / "saved")
    assert torch.equal(logprobs(load_model(tmp_path / "saved", CPU)), logprobs(loaded))


# --- one set of weights -----------------------------------------------------------------------------------------------


def names(folder: Path) -> list[str]:
    return [path.name for path in weight_files(folder)]


def test_weights_in_another_format_are_not_read_and_not_hashed(model: Path) -> None:
    before = weights_sha256(model)
    weights = load_file(model / "model.safetensors")
    for other in ("consolidated.safetensors", "consolidated-00001-of-00001.safetensors", "adapter_model.safetensors"):
        save_file(weights, model / other)
    save_file(weights, model / "model.fp16.safetensors")
    assert names(model) == ["model.safetensors"]
    assert weights_sha256(model) == before


def test_heads_in_files_of_their_own_are_hashed(model: Path) -> None:
    before = weights_sha256(model)
    for head in ("value_head.safetensors", "head.safetensors", "adapters.safetensors"):
        save_file({"x": torch.zeros(1)}, model / head)
    assert len(names(model)) == 4
    assert weights_sha256(model) != before


def test_of_shards_those_of_the_index_count(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    shard(model)
    before = weights_sha256(model)
    save_file(weights, model / "model-00001-of-00001.safetensors")
    save_file(weights, model / "consolidated.safetensors")
    assert names(model) == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert weights_sha256(model) == before
    assert all(torch.equal(load_model(model, CPU).get_parameter(name), weight) for name, weight in weights.items())


@pytest.mark.parametrize("lost", ["model-00002-of-00002.safetensors", "model.safetensors.index.json"])
def test_a_part_that_is_missing_is_named(model: Path, lost: str) -> None:
    shard(model)
    (model / lost).unlink()
    with pytest.raises(DataError, match=lost):
        weight_files(model)


def test_other_formats_alone_are_refused_by_name(model: Path) -> None:
    (model / "model.safetensors").rename(model / "consolidated.safetensors")
    with pytest.raises(DataError, match=r"consolidated\.safetensors.*expected.*transformers"):
        weight_files(model)


def test_a_broken_index_is_named(model: Path) -> None:
    shard(model)
    for text in ("{", "[]", "{}", '{"weight_map": []}'):
        (model / "model.safetensors.index.json").write_text(text)
        with pytest.raises(DataError, match=r"index\.json"):
            weight_files(model)


# --- multimodal families ----------------------------------------------------------------------------------------------


def shapes(folder: Path) -> dict[str, list[int]]:
    found = {}
    for path in weight_files(folder):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    return found


@pytest.mark.slow
@pytest.mark.parametrize("shards", [None, "100KB"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_familys_checkpoint_has_the_form_of_the_whole(tmp_path: Path, family: str, shards: str | None) -> None:
    """Whoever loads round 0 loads round 1, with what was learned; the part that sees is as it was."""
    folder = build_family(tmp_path / "model", family, shards=shards)
    loaded = learned(folder)
    assert (logprobs(loaded) - logprobs(load_model(folder, CPU))).abs().max() > 0.1
    digest = save_model(loaded, folder, tmp_path / "saved")
    assert shapes(tmp_path / "saved") == shapes(folder)
    assert torch.equal(logprobs(load_model(tmp_path / "saved", CPU)), logprobs(loaded))
    assert torch.equal(logprobs(AutoModelForImageTextToText.from_pretrained(tmp_path / "saved")), logprobs(loaded))
    assert save_model(load_model(tmp_path / "saved", CPU), tmp_path / "saved", tmp_path / "again") == digest
    kinds = [json.loads((at / "config.json").read_text())["model_type"] for at in (folder, tmp_path / "saved")]
    assert kinds == [family, family]
    if type(loaded).__name__.endswith("ForCausalLM"):  # it was loaded without what sees
        one, other = (AutoModelForImageTextToText.from_pretrained(at) for at in (folder, tmp_path / "saved"))
        seeing = [name for name, _ in one.named_parameters() if "vis" in name]
        assert seeing and all(torch.equal(one.get_parameter(n), other.get_parameter(n)) for n in seeing)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gemma3", "qwen3_5"])
def test_a_critic_of_a_family(tmp_path: Path, family: str) -> None:
    folder = build_family(tmp_path / "model", family)
    critic = Critic.start(folder, folder, seed=0)
    (tmp_path / "saved").mkdir()
    critic.save(tmp_path / "saved" / "critic")
    again = Critic.load(tmp_path / "saved" / "critic")
    with torch.no_grad():
        one, other = (c.head(c.backbone(input_ids=IDS).last_hidden_state) for c in (critic, again))
        hidden = AutoModelForCausalLM.from_pretrained(folder).base_model(input_ids=IDS).last_hidden_state
    assert torch.equal(one, other)
    assert torch.allclose(one, critic.head(hidden), atol=1e-5)


@pytest.mark.slow
def test_a_family_without_a_class_for_a_critic_is_refused(tmp_path: Path) -> None:
    folder = build_family(tmp_path / "model", "llama4")
    with pytest.raises(DataError, match=r"llama4.*learn\.critic"):
        Critic.start(folder, folder, seed=0)
