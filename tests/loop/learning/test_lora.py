"""Adapters: frozen weights, the same start, and the same direction as learning whole (arXiv:2106.09685)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from sparring.loop.errors import ConfigError, StepError
from sparring.loop.learning.checkpoint import load_model
from sparring.loop.learning.learner import TorchLearner
from sparring.loop.learning.lora import FOLDER, Adapted, check_merge, refuse_targets
from sparring.loop.learning.losses import bind
from sparring.loop.learning.options import Lora, Optimization
from sparring.loop.learning.preference_method import Preference
from sparring.loop.learning.preference_terms import Terms
from tests.helpers.families import build_family
from tests.helpers.learner_pairs import N, gaps, initial, round_of, scored, unscored
from tests.helpers.reward_backbones import build_language_model

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def learner_of(folder: Path, lora: Lora | None, **options: Any) -> TorchLearner:
    made = Optimization(**{"lr": 1e-3, "batch_size": N, "warmup": 0.0} | options)
    method = Preference(Terms(bind("sigmoid")))
    return TorchLearner(folder, method, made, seed=0, dtype="float32", lora=lora)


def weights(folder: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model.safetensors")


def test_it_starts_as_no_change_and_only_adapters_learn(tiny: Path) -> None:
    model = load_model(tiny, CPU)
    before = {name: p.clone() for name, p in model.named_parameters()}
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        plain = model(ids).logits
        adapted = Adapted(model, Lora(r=4), seed=0)
        assert torch.equal(model(ids).logits, plain)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    merged = adapted.merge(tiny)
    assert all(torch.equal(p, before[name]) for name, p in merged.named_parameters())
    assert all(p.requires_grad for p in merged.parameters())


def test_one_seed_one_adapter_and_no_global_random_state(tiny: Path) -> None:
    drawn = []
    for seed in (3, 3, 4):
        torch.manual_seed(1)
        model = load_model(tiny, CPU)
        Adapted(model, Lora(r=4), seed=seed)
        drawn.append(torch.cat([p.flatten() for name, p in model.named_parameters() if "lora_A" in name]))
        assert torch.rand(1).item() == torch.rand(1, generator=torch.Generator().manual_seed(1)).item()
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_a_checkpoint_is_the_merged_policy_with_the_adapter_beside_it(tiny: Path, tmp_path: Path) -> None:
    policy, learner = initial(tiny), learner_of(tmp_path, Lora(r=4, alpha=8), lr=1e-2, epochs=5)
    pairs = scored(learner, policy, unscored(tiny))
    candidate, _, steps = learner.learn(round_of(policy), pairs)
    assert steps[0].metrics["reward_margin"] == 0.0  # its reference is the policy with the adapter off
    assert steps[-1].metrics["accuracy"] == 1.0
    folder = Path(candidate.path)
    assert set(weights(folder)) == set(weights(tiny))
    # peft reads the adapter, and on the policy it is what was merged.
    again = PeftModel.from_pretrained(load_model(tiny, CPU), folder / FOLDER).merge_and_unload()
    for name, tensor in again.named_parameters():
        torch.testing.assert_close(tensor.detach(), load_model(folder, CPU).get_parameter(name).detach())
    # The embeddings are no target.
    assert torch.equal(weights(folder)["model.embed_tokens.weight"], weights(tiny)["model.embed_tokens.weight"])


def test_a_large_rank_learns_in_the_direction_of_the_whole(tiny: Path, tmp_path: Path) -> None:
    """With B = 0 the adapter's first gradient is that of W seen through A: A A^T is near the identity at full rank."""
    size, policy = 64, initial(tiny)
    moved = {}
    # Plain gradient descent has a direction to compare; AdamW's first step is all signs. So the gradient is compared.
    for name, lora in (("whole", None), ("lora", Lora(r=16 * size, alpha=16 * size))):
        learner = learner_of(tmp_path / name, lora, lr=1e-5)
        pairs = scored(learner, policy, unscored(tiny))
        candidate, _, _ = learner.learn(round_of(policy), pairs)
        before, after = weights(tiny), weights(candidate.path)
        names = [n for n in before if ".self_attn." in n or ".mlp." in n]
        moved[name] = torch.cat([(after[n] - before[n]).flatten() for n in names])
        moved[f"{name} gap"] = torch.tensor(gaps(candidate.path, pairs)) - torch.tensor(gaps(tiny, pairs))
    cosine = torch.nn.functional.cosine_similarity(moved["whole"], moved["lora"], dim=0)
    assert cosine > 0.5
    assert ((moved["whole gap"] > 0) == (moved["lora gap"] > 0)).all()


def test_killed_and_resumed(tiny: Path, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(done: int, total: int, loss: float) -> None:
        if done == 5:
            raise Killed

    policy, options = initial(tiny), {"batch_size": 2, "epochs": 2, "save_seconds": 0.0}
    whole = learner_of(tmp_path / "whole", Lora(r=4), **options)
    pairs = scored(whole, policy, unscored(tiny))
    expected = whole.learn(round_of(policy), pairs)
    killed = learner_of(tmp_path / "killed", Lora(r=4), **options)
    killed.progress = kill
    with pytest.raises(Killed):
        killed.learn(round_of(policy), pairs)
    (state,) = (tmp_path / "killed").glob("*.safetensors")
    assert state.stat().st_size < (tiny / "model.safetensors").stat().st_size  # adapters alone
    found = learner_of(tmp_path / "killed", Lora(r=4), **options).learn(round_of(policy), pairs)
    assert (found[0].weights_sha256, found[2]) == (expected[0].weights_sha256, expected[2])


# --- what cannot be merged --------------------------------------------------------------------------------------------


def jamba(folder: Path) -> Path:
    """Its code takes the bias out of a linear map while it calls it, which does not reach the map inside an adapter."""
    mixed = {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}
    small = {"num_experts": 4, "mamba_d_state": 16, "mamba_dt_rank": 4}
    return build_language_model(folder, "jamba", use_mamba_kernels=False, **mixed, **small)


def gpt2(folder: Path) -> Path:
    return build_language_model(folder, "gpt2", n_embd=64, n_layer=2, n_head=2, n_positions=512)


def untied(folder: Path) -> Path:
    return build_language_model(folder, "llama", tie_word_embeddings=False)


TIED: list[str | list[str]] = [
    ["lm_head"],
    ["q_proj", "embed_tokens"],
    r".*\.(q_proj|embed_tokens)",
    ["head", "lm_head"],
]


@pytest.mark.parametrize("targets", TIED)
def test_a_tied_weight_gets_no_adapter(tiny: Path, targets: str | list[str]) -> None:
    with pytest.raises(ConfigError, match=r"lm_head.*one weight|one weight.*lm_head") as refused:
        refuse_targets(tiny, Lora(targets=targets))
    assert "model.embed_tokens and lm_head" in str(refused.value) and repr(targets) in str(refused.value)


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj"], r".*self_attn\.[qkvo]_proj"])
def test_other_targets_of_a_tied_model_are_fine(tiny: Path, targets: str | list[str]) -> None:
    refuse_targets(tiny, Lora(targets=targets))
    check_merge(load_model(tiny, CPU), tiny, Lora(targets=targets))


@pytest.mark.parametrize("targets", [["lm_head"], ["embed_tokens"], ["lm_head", "embed_tokens", "q_proj"]])
def test_an_untied_head_is_merged(tmp_path: Path, targets: list[str]) -> None:
    folder = untied(tmp_path / "model")
    refuse_targets(folder, Lora(targets=targets))
    check_merge(load_model(folder, CPU), folder, Lora(targets=targets))


@pytest.mark.parametrize(("targets", "said"), [(["q_prj"], "q_prj"), (".*norm", "RMSNorm"), ("nowhere", "nowhere")])
def test_targets_that_cannot_be_adapted_are_named(tiny: Path, targets: str | list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        refuse_targets(tiny, Lora(targets=targets))


@pytest.mark.parametrize("family", ["gemma3", "qwen3_5"])
def test_a_tied_weight_of_a_family(tmp_path: Path, family: str) -> None:
    folder = build_family(tmp_path / "model", family)
    refuse_targets(folder, Lora())
    with pytest.raises(ConfigError, match="one weight"):
        refuse_targets(folder, Lora(targets=["lm_head"]))


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_a_merge_that_moves_log_probs_is_not_saved(tiny: Path, target: str) -> None:
    """Whoever comes past the refusal of tied weights."""
    model = load_model(tiny, CPU)
    adapted = Adapted(model, Lora(r=4, targets=[target]), seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.1)
    with pytest.raises(StepError, match=r"\d nats per token; expected rounding.*learn\.lora\.targets"):
        adapted.merge(tiny)


@pytest.mark.parametrize("make", [gpt2, untied])
def test_adapters_of_any_linear_map_can_be_merged(tmp_path: Path, make: Any) -> None:
    """gpt2's linear maps are transposed convolutions."""
    folder = make(tmp_path / "model")
    refuse_targets(folder, Lora())
    check_merge(load_model(folder, CPU), folder, Lora())


def test_a_model_whose_code_goes_round_the_adapter_is_refused(tmp_path: Path) -> None:
    folder = jamba(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with pytest.raises(ConfigError, match=r"Jamba.*nats per token.*learn\.lora\.targets"):
        check_merge(model, folder, Lora())
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    check_merge(model, folder, Lora(targets=["q_proj", "k_proj", "v_proj", "o_proj"]))
