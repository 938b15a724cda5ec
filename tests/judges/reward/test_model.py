"""Reward models: no score moves with padding or batching, saved is what was, and others' models score as at home."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
)

from sparring.judges.reward.encoding import Encoded
from sparring.judges.reward.losses import bradley_terry
from sparring.judges.reward.model import RewardModel
from sparring.loop.errors import ConfigError, DataError
from sparring.loop.learning.checkpoint import weights_sha256
from tests.helpers.families import build_family
from tests.helpers.reward_backbones import (
    ANSWERS,
    build_classifier,
    build_foreign,
    build_language_model,
    build_tiny_encoder,
    encoded,
)
from tests.helpers.tiny import build_tiny_model

Kind = tuple[str, Mapping[str, Any], Mapping[str, Any]]
KINDS: list[Kind] = [
    ("linear", {}, {}),
    ("linear", {}, {"pooling": "mean", "layer": 1}),
    ("mlp", {"hidden": 16}, {"pooling": "answer_mean"}),
    ("multi", {"members": 3}, {}),
    ("multi", {"members": 2}, {"adapters": 2, "adapter_options": {"rank": 4}}),
    ("proto", {"count": 3, "dim": 8, "growth": 2}, {}),
    ("proto_tokens", {"count": 3, "length": 60, "growth": 2}, {}),
]
NAMES = ["-".join([head, *map(str, more.values())]) for head, _, more in KINDS]


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_encoder(tmp_path_factory.mktemp("models") / "encoder")


def create(folder: Path, kind: Kind, **more: Any) -> RewardModel:
    head, options, rest = kind
    if rest.get("adapters") is None or "seed" in more:
        return RewardModel.create(folder, head, options, **rest, **more)
    model = RewardModel.create(folder, head, options, **rest)
    with torch.no_grad():  # an adapter changes nothing before it is trained
        for i, (name, parameter) in enumerate(model.backbone.named_parameters()):
            if "lora_B" in name:
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(i))
    return model


@torch.no_grad()
def scores(model: RewardModel, rows: list[Encoded]) -> torch.Tensor:
    found: torch.Tensor = model(**model.collate(rows))
    return found


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
@pytest.mark.parametrize("which", ["causal", "encoder"])
def test_padding_and_batching_move_no_score(tiny: Path, encoder: Path, which: str, kind: Kind) -> None:
    """Pitfall 41. In the causal model the padding is the end token too, and the last token of every row."""
    folder = tiny if which == "causal" else encoder
    if which == "encoder" and kind[0] == "proto_tokens":
        kind = (kind[0], kind[1], {"pooling": "last"})
    model = create(folder, kind)
    rows = encoded(folder)
    alone = torch.cat([scores(model, [row]) for row in rows])
    together = scores(model, rows)
    batch = model.collate(rows)
    wider = {name: torch.nn.functional.pad(tensor, (0, 40)) for name, tensor in batch.items()}  # type: ignore[arg-type]
    with torch.no_grad():
        padded = model(**wider)
    assert alone.shape == (len(rows), model.members)
    assert alone.dtype == torch.float32
    assert alone.std(0).min() > 1e-2, "the answers must differ in score, or this shows nothing"
    assert (alone - together).abs().max() < 1e-5
    assert (alone - padded).abs().max() < 1e-5
    assert (scores(model, rows[::-1]).flip(0) - alone).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
@pytest.mark.parametrize("which", ["causal", "encoder"])
def test_saved_and_loaded_it_scores_the_same(tiny: Path, encoder: Path, which: str, kind: Kind, tmp_path: Path) -> None:
    folder = tiny if which == "causal" else encoder
    if which == "encoder" and kind[0] == "proto_tokens":
        kind = (kind[0], kind[1], {"pooling": "last"})
    model = create(folder, kind)
    nothing = torch.zeros(0, 64 if which == "causal" else 32)
    for _ in range(1000):
        model.head.advance(nothing, nothing)  # prototypes fade: the step is saved too
    model.set_scale([0.5] * model.members, [2.0] * model.members)
    rows = encoded(folder)
    sha = model.save(tmp_path / "saved", folder)
    again = RewardModel.load(tmp_path / "saved")
    assert torch.equal(scores(again, rows), scores(model, rows))
    assert again.facts == model.facts
    assert (again.facts.mean, again.facts.std) == ((0.5,) * model.members, (2.0,) * model.members)
    assert sha == weights_sha256(tmp_path / "saved")
    assert again.save(tmp_path / "twice", tmp_path / "saved") == sha
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").get_vocab()


def test_where_weights_lie_in_their_file_moves_no_bit(tiny: Path, tmp_path: Path) -> None:
    """A mapped file's header is of any length, and a dot product of weights that are aligned otherwise may differ."""
    model, rows, path = RewardModel.create(tiny, seed=1), encoded(tiny), tmp_path / "saved" / "model.safetensors"
    model.save(tmp_path / "saved", tiny)
    weights = {name: tensor.clone() for name, tensor in load_file(path).items()}
    for i in range(8):
        save_file(weights, path, metadata={"format": "pt", "note": "x" * 8 * i})
        assert torch.equal(scores(RewardModel.load(tmp_path / "saved"), rows), scores(model, rows))


def test_the_hash_covers_head_and_adapters(tiny: Path, tmp_path: Path) -> None:
    model = create(tiny, KINDS[4])
    hashes = [model.save(tmp_path / "a", tiny)]
    for part in (model.head.scores[1].weight, dict(model.backbone.named_parameters())[_lora_name(model)]):  # type: ignore[index,union-attr]
        with torch.no_grad():
            part.add_(1.0)
        hashes.append(model.save(tmp_path / "a", tiny))
    assert len(set(hashes)) == 3


def _lora_name(model: RewardModel) -> str:
    return next(name for name, _ in model.backbone.named_parameters() if "lora_A.1" in name)


def test_swapping_the_answers_negates_the_margin(tiny: Path) -> None:
    model = RewardModel.create(tiny)
    a, b = encoded(tiny)[:2]
    one, other = scores(model, [a, b])[:, 0], scores(model, [b, a])[:, 0]
    margin, swapped = one[0] - one[1], other[0] - other[1]
    assert abs(margin) > 1e-2
    assert margin.item() == pytest.approx(-swapped.item(), abs=1e-5)
    loss = bradley_terry(margin[None], 0.8)
    assert loss.item() == pytest.approx(bradley_terry(swapped[None], 1 - 0.8).item(), abs=1e-5)


def test_the_last_token_is_the_masks_and_not_the_paddings(tiny: Path) -> None:
    """Worked by the backbone alone: hidden state of the last token times the head."""
    model = RewardModel.create(tiny)
    row = encoded(tiny)[2]
    with torch.no_grad():
        hidden = model.backbone(input_ids=torch.tensor([row.ids])).last_hidden_state[0]
    wanted = hidden[-1] @ model.head.score.weight[0]  # type: ignore[union-attr,index]
    assert scores(model, [encoded(tiny)[4], row])[1].item() == pytest.approx(wanted.item(), abs=1e-5)


@pytest.mark.parametrize(("pooling", "start"), [("mean", 0), ("answer_mean", None)])
def test_means_are_over_all_tokens_or_the_answers(encoder: Path, pooling: Any, start: int | None) -> None:
    model = RewardModel.create(encoder, pooling=pooling)
    row = encoded(encoder)[2]
    types = torch.tensor([[int(i >= row.answer_start) for i in range(len(row))]])
    with torch.no_grad():
        hidden = model.backbone(input_ids=torch.tensor([row.ids]), token_type_ids=types).last_hidden_state[0]
        found = model.features(**model.collate([encoded(encoder)[4], row]))[1]
    first = row.answer_start if start is None else start
    assert torch.allclose(found, hidden[first:].mean(0), atol=1e-5)


def test_defaults_follow_the_backbone(tiny: Path, encoder: Path) -> None:
    assert RewardModel.create(tiny).pooling == "last"
    assert RewardModel.create(encoder).pooling == "mean"
    assert RewardModel.create(tiny).max_length == 512
    assert RewardModel.create(tiny, max_length=100).max_length == 100


def test_a_middle_layer_is_computed_and_no_further(tiny: Path) -> None:
    """Transformers' hidden state after one block, through the final norm; and the other block is gone."""
    model, whole = RewardModel.create(tiny, layer=1), RewardModel.create(tiny)
    row = encoded(tiny)[2]
    with torch.no_grad():
        states = whole.backbone(input_ids=torch.tensor([row.ids]), output_hidden_states=True).hidden_states
        wanted = whole.backbone.norm(states[1])[0, -1]  # type: ignore[operator]
        found = model.features(**model.collate([row]))[0]
    assert torch.allclose(found, wanted, atol=1e-5)
    assert len(model.backbone.layers) == 1  # type: ignore[arg-type]
    same = RewardModel.create(tiny, layer=-2)
    assert torch.equal(scores(same, [row]), scores(model, [row]))
    for layer in (0, 3, -3):
        with pytest.raises(ConfigError, match="give 1 to 2, or -1 to -2"):
            RewardModel.create(tiny, layer=layer)


# --- as transformers and vLLM know it ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [-1, 1])
def test_a_linear_head_on_a_causal_model_is_transformers_own(tiny: Path, tmp_path: Path, layer: int) -> None:
    model = RewardModel.create(tiny, layer=layer)
    model.save(tmp_path / "saved", tiny)
    assert not (tmp_path / "saved" / "head.safetensors").exists()
    assert load_file(tmp_path / "saved" / "model.safetensors")["score.weight"].shape == (1, 64)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    for row in encoded(tiny):
        with torch.no_grad():
            wanted = theirs(input_ids=torch.tensor([row.ids])).logits[0, 0].item()
        assert scores(model, [row]).item() == pytest.approx(wanted, abs=1e-5)
    # Its padding was the end token, and transformers would have read before it: now it refuses to guess in a batch.
    with pytest.raises(ValueError, match="no padding token"):
        theirs(input_ids=torch.zeros(2, 3, dtype=torch.long))


@pytest.mark.parametrize("pad", [None, 0, 256, 257])
def test_a_third_partys_causal_model_scores_as_its_own_forward(tmp_path: Path, pad: int | None) -> None:
    """Also where padding and end are one token (257), so that transformers reads the token before the end."""
    folder = build_foreign(tmp_path / "foreign", pad=pad)
    theirs = LlamaForSequenceClassification.from_pretrained(folder).eval()
    ours = RewardModel.load(folder)
    rows = encoded(folder)
    with torch.no_grad():
        wanted = torch.cat([theirs(input_ids=torch.tensor([row.ids])).logits for row in rows])
    assert scores(ours, rows).numpy() == pytest.approx(wanted.numpy(), abs=1e-5)
    assert wanted.std() > 1e-2
    with pytest.raises(ConfigError, match="copy its folder"):
        ours.save(tmp_path / "again", folder)


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 16},
    "qwen2": {},
    "qwen3": {"head_dim": 32},
    "gemma2": {"head_dim": 32, "sliding_window": 16, "query_pre_attn_scalar": 32},
    "gemma3_text": {"head_dim": 32, "sliding_window": 16, "query_pre_attn_scalar": 32},
    "phi3": {},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 512},
    "gpt_neox": {},
    "smollm3": {},
    "mixtral": {"num_local_experts": 4},
    "falcon": {"alibi": False, "new_decoder_architecture": False},
    "bloom": {"n_layer": 2, "n_head": 2},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "stablelm": {},
    "starcoder2": {},
    "gpt_oss": {"num_local_experts": 4, "head_dim": 32},
}


@pytest.mark.slow
@pytest.mark.parametrize("said", [True, False], ids=["one label", "no labels said"])
@pytest.mark.parametrize("template", ["chatml", "gemma", "bare"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_models_of_others_score_as_at_home(tmp_path: Path, kind: str, template: str, said: bool) -> None:
    """By their own forward on the whole of what their template writes, as they were trained."""
    folder = build_classifier(tmp_path / "model", kind, template, said=said, **ARCHITECTURES[kind])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # The reference of all: of Gemma 2, the faster one drops the cap on attention scores.
    eager = {"attn_implementation": "eager"}
    theirs = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, **eager).eval()
    ids = [tokenizer.apply_chat_template(turns(i, a), return_dict=False) for i, a in enumerate(ANSWERS)]
    with torch.no_grad():
        wanted = torch.cat([theirs(input_ids=torch.tensor([row])).logits for row in ids])
    rows = encoded(folder, read="template")
    assert [list(row.ids) for row in rows] == ids
    model = RewardModel.load(folder)
    assert model.pooling == "last"
    assert scores(model, rows).numpy() == pytest.approx(wanted.numpy(), abs=1e-4)
    assert wanted.std() > 1e-2
    ended = scores(model, encoded(folder))
    assert (ended - wanted).abs().max() > 1e-2 or template == "bare"


def turns(i: int, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"is it {'so ' * i}?"}, {"role": "assistant", "content": answer}]


@pytest.mark.parametrize(
    "names",
    [
        ("v_head.summary.weight", "v_head.summary.bias"),
        ("value_head.weight", "value_head.bias"),
        ("regression_head.weight",),
        ("reward_head.weight",),
        ("rm_head.weight",),
        ("score.weight",),
    ],
    ids=lambda names: names[0],
)
@pytest.mark.parametrize("apart", [False, True], ids=["inside", "in a file of its own"])
def test_a_scalar_head_of_any_name(tmp_path: Path, names: tuple[str, ...], apart: bool) -> None:
    folder = build_tiny_model(tmp_path / "valued")
    head = {"weight": torch.randn(1, 64, generator=torch.Generator().manual_seed(1)), "bias": torch.tensor([0.7])}
    added = {name: head[name.rpartition(".")[2]] for name in names}
    if apart:  # as LLaMA-Factory writes it
        save_file(added, folder / "value_head.safetensors")
    else:
        state = load_file(folder / "model.safetensors")
        save_file(state | added, folder / "model.safetensors", metadata={"format": "pt"})
    row = encoded(folder, read="template")[1]
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(folder)
        hidden = model.base_model(input_ids=torch.tensor([row.ids])).last_hidden_state[0, -1]
    wanted = head["weight"] @ hidden + (head["bias"] if len(names) == 2 else 0)
    assert scores(RewardModel.load(folder), [row]).item() == pytest.approx(wanted.item(), abs=1e-5)


def test_a_token_classification_with_one_label_is_read_at_the_last_token(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "tokens")
    config = LlamaConfig.from_pretrained(folder, num_labels=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = LlamaForTokenClassification.from_pretrained(folder, config=config).eval()
    theirs.score.weight.data.normal_(0, 1, generator=torch.Generator().manual_seed(1))
    theirs.save_pretrained(folder)
    rows = encoded(folder, read="template")
    with torch.no_grad():
        wanted = [theirs(input_ids=torch.tensor([row.ids])).logits[0, -1].item() for row in rows]
    assert scores(RewardModel.load(folder), rows)[:, 0].tolist() == pytest.approx(wanted, abs=1e-5)
    two = LlamaForTokenClassification(LlamaConfig.from_pretrained(folder, num_labels=2))
    two.save_pretrained(folder)
    with pytest.raises(DataError, match="0 scalar heads"):
        RewardModel.load(folder)


def test_the_gate_of_shared_experts_is_no_head(tmp_path: Path) -> None:
    """It maps hidden states to a scalar, too."""
    folder = build_classifier(
        tmp_path / "model", "qwen2_moe", "chatml", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=48,
        shared_expert_intermediate_size=48,
    )  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["Qwen2MoeForRewardModel"]}))
    state = load_file(folder / "model.safetensors")
    assert [2 for name, weight in state.items() if "shared_expert_gate" in name and weight.shape == (1, 64)] == [2, 2]
    weight = state.pop("score.weight")
    save_file(state | {"v_head.weight": weight}, folder / "model.safetensors", metadata={"format": "pt"})
    model = RewardModel.load(folder)
    assert torch.equal(model.head.score.weight, weight)  # type: ignore[union-attr]


HYBRIDS: dict[str, dict[str, Any]] = {
    "mamba2": {"num_heads": 4, "head_dim": 32, "n_groups": 1, "state_size": 16, "chunk_size": 16, "expand": 2},
    "jamba": {
        "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
        "num_experts": 4, "mamba_d_state": 16, "mamba_dt_rank": 4, "use_mamba_kernels": False,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    "granite": {"logits_scaling": 3.0},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", HYBRIDS)
def test_a_backbone_of_any_architecture(tmp_path: Path, kind: str) -> None:
    folder = build_language_model(tmp_path / "model", kind, **HYBRIDS[kind])
    model, rows = RewardModel.create(folder, seed=1), encoded(folder)
    alone = torch.cat([scores(model, [row]) for row in rows])
    assert alone.std() > 1e-2
    assert (scores(model, rows) - alone).abs().max() < 1e-5
    model.save(tmp_path / "saved", folder)
    assert torch.allclose(scores(RewardModel.load(tmp_path / "saved"), rows), alone, atol=1e-5)


def test_log_probs_that_a_model_scales_are_refused(tiny: Path, tmp_path: Path) -> None:
    """Not scaled, they are used; by a factor of 3, they would be others."""
    RewardModel.create(tiny, lm_head=True)
    RewardModel.create(build_language_model(tmp_path / "capped", "gemma2", final_logit_softcapping=5.0), lm_head=True)
    folder = build_language_model(tmp_path / "scaled", "granite", logits_scaling=3.0)
    RewardModel.create(folder)
    with pytest.raises(ConfigError, match=r"sft .* granite"):
        RewardModel.create(folder, lm_head=True)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gemma3", "qwen3_5"])
def test_a_reward_model_on_a_multimodal_family(tmp_path: Path, family: str) -> None:
    folder = build_family(tmp_path / "model", family)
    rows = encoded(folder)
    with torch.no_grad():
        language_model = AutoModelForCausalLM.from_pretrained(folder).base_model
        hidden = [language_model(input_ids=torch.tensor([row.ids])).last_hidden_state[0, -1] for row in rows]
    model = RewardModel.create(folder, seed=1)
    wanted = torch.stack([h @ model.head.score.weight[0] for h in hidden])  # type: ignore[union-attr,index]
    assert torch.allclose(scores(model, rows)[:, 0], wanted, atol=1e-4)
    model.save(tmp_path / "saved", folder)
    assert torch.allclose(scores(RewardModel.load(tmp_path / "saved"), rows)[:, 0], wanted, atol=1e-4)


def test_a_third_partys_encoder_scores_by_its_own_forward(tmp_path: Path) -> None:
    folder = build_tiny_encoder(tmp_path / "foreign", classifier=True)
    theirs = BertForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = encoded(folder)
    with torch.no_grad():
        wanted = [
            theirs(**tokenizer(f"is it {'so ' * i}?", a, return_tensors="pt")).logits.item()
            for i, a in enumerate(ANSWERS)
        ]
    model = RewardModel.load(folder)
    assert scores(model, rows)[:, 0].tolist() == pytest.approx(wanted, abs=1e-5)
    assert max(wanted) - min(wanted) > 1e-2


def test_a_value_head_beside_a_language_model_is_found(tmp_path: Path) -> None:
    """As TRL saves a model with a value head: v_head.summary, with a bias."""
    folder = build_tiny_model(tmp_path / "valued")
    weight, bias = torch.randn(1, 64, generator=torch.Generator().manual_seed(1)), torch.tensor([0.7])
    state = load_file(folder / "model.safetensors")
    head = {"v_head.summary.weight": weight, "v_head.summary.bias": bias}
    save_file({**state, **head}, folder / "model.safetensors", metadata={"format": "pt"})
    row = encoded(folder)[1]
    with torch.no_grad():
        language_model = AutoModelForCausalLM.from_pretrained(folder)
        hidden = language_model.base_model(input_ids=torch.tensor([row.ids])).last_hidden_state[0, -1]
    assert scores(RewardModel.load(folder), [row]).item() == pytest.approx((weight @ hidden + bias).item(), abs=1e-5)


def test_what_is_no_reward_model_is_refused(tiny: Path, encoder: Path, tmp_path: Path) -> None:
    """A head that is not in the folder would be drawn at random, and score so."""
    with pytest.raises(DataError, match="0 scalar heads"):
        RewardModel.load(tiny)
    untrained = build_tiny_model(tmp_path / "untrained")
    config = LlamaConfig.from_pretrained(untrained, num_labels=1, architectures=["LlamaForSequenceClassification"])
    config.save_pretrained(untrained)
    with pytest.raises(DataError, match=r"lacks weights .* score.weight"):
        RewardModel.load(untrained)
    written = json.loads((untrained / "config.json").read_text())
    (untrained / "config.json").write_text(json.dumps({**written, "id2label": {"0": "bad", "1": "good"}}))
    with pytest.raises(DataError, match=r"lacks weights .* score.weight"):
        RewardModel.load(untrained)
    two = build_foreign(tmp_path / "two", pad=None, labels=2)
    with pytest.raises(DataError, match="classifier of 2 labels"):
        RewardModel.load(two)
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text((tiny / "config.json").read_text())
    (pickled / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(DataError, match="pickled weights are not read"):
        RewardModel.load(pickled)


def test_a_broken_reward_json_is_refused(tiny: Path, tmp_path: Path) -> None:
    RewardModel.create(tiny).save(tmp_path / "saved", tiny)
    (tmp_path / "saved" / "reward.json").write_text('{"head": "linear", "colour": "red"}')
    with pytest.raises(DataError, match="expected the fields head"):
        RewardModel.load(tmp_path / "saved")


# --- training ---------------------------------------------------------------------------------------------------------


def test_adapters_change_nothing_before_they_are_trained_and_then_only_their_member(tiny: Path) -> None:
    rows = encoded(tiny)
    plain = RewardModel.create(tiny, "multi", {"members": 2})
    model = RewardModel.create(tiny, "multi", {"members": 2}, adapters=2)
    before = scores(model, rows)
    assert torch.allclose(before, scores(plain, rows), atol=1e-6)
    with torch.no_grad():
        for name, parameter in model.backbone.named_parameters():
            if "lora_B.1." in name:
                parameter.add_(0.1)
    after = scores(model, rows)
    assert torch.equal(after[:, 0], before[:, 0])
    assert (after[:, 1] - before[:, 1]).abs().max() > 1e-2


def test_every_adapter_learns_in_one_pass_and_the_backbone_does_not(tiny: Path) -> None:
    """Switching adapters must not take the gradient from those that came before."""
    model = RewardModel.create(tiny, "multi", {"members": 2}, adapters=2).train()
    model(**model.collate(encoded(tiny))).sum().backward()
    for name, parameter in model.backbone.named_parameters():
        learns = "lora_B" in name
        assert (parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)) == learns or "lora_A" in name, name
        assert parameter.requires_grad == ("lora_" in name)


def test_adapters_need_a_member_each(tiny: Path) -> None:
    for head, options, count in (("linear", {}, 2), ("multi", {"members": 3}, 2)):
        with pytest.raises(ConfigError, match="as many as members"):
            RewardModel.create(tiny, head, options, adapters=count)
    with pytest.raises(ConfigError, match="did you mean 'rank'"):
        RewardModel.create(tiny, "multi", {"members": 2}, adapters=2, adapter_options={"ranks": 2})


def test_a_seed_gives_one_model(tiny: Path, tmp_path: Path) -> None:
    for kind in KINDS:
        hashes = [create(tiny, kind, seed=seed).save(tmp_path / "m", tiny) for seed in (1, 1, 2)]
        assert hashes[0] == hashes[1] != hashes[2], kind


def test_the_kept_language_model_head_gives_the_answers_log_prob(tiny: Path, tmp_path: Path) -> None:
    """Against transformers' own logits in float64; and it is not in what is saved (2406.10216)."""
    model = RewardModel.create(tiny, "mlp", {"hidden": 8}, lm_head=True)
    rows = encoded(tiny)[:3]
    batch = model.collate(rows)
    with torch.no_grad():
        tokens = model.tokens(**batch)
        found = model.answer_logprobs(tokens, batch["input_ids"], batch["token_type_ids"])
    language_model = AutoModelForCausalLM.from_pretrained(tiny)
    for row, value in zip(rows, found.tolist(), strict=True):
        with torch.no_grad():
            logprobs = language_model(input_ids=torch.tensor([row.ids])).logits[0].double().log_softmax(1)
        wanted = sum(logprobs[i - 1, row.ids[i]].item() for i in range(row.answer_start, len(row)))
        assert value == pytest.approx(wanted, abs=1e-3)
    model.save(tmp_path / "saved", tiny)
    assert not any("lm_head" in name for name in load_file(tmp_path / "saved" / "model.safetensors"))
    assert torch.equal(scores(RewardModel.load(tmp_path / "saved"), rows), scores(model, rows))
    with pytest.raises(ConfigError, match="lm_head=True"):
        RewardModel.create(tiny).answer_logprobs(tokens, batch["input_ids"], batch["token_type_ids"])


def test_a_reward_model_can_be_the_backbone_of_another(tiny: Path, tmp_path: Path) -> None:
    """The second stage of a LoRA ensemble starts from the first (2401.16635)."""
    first = RewardModel.create(tiny)
    with torch.no_grad():
        first.backbone.layers[0].mlp.up_proj.weight.add_(0.1)  # type: ignore[index,union-attr]
    first.save(tmp_path / "first", tiny)
    second = RewardModel.create(tmp_path / "first", "multi", {"members": 2}, adapters=2)
    batch = first.collate(encoded(tiny))
    with torch.no_grad():
        assert torch.allclose(first.features(**batch), second.features(**batch, adapter=1), atol=1e-6)


def test_heads_compute_in_float32_under_autocast(tiny: Path) -> None:
    model = RewardModel.create(tiny)
    features = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.score(features)
    assert found.dtype == torch.float32
    assert torch.equal(found, model.score(features))


def test_a_backbone_in_bfloat16_has_features_and_scores_in_float32(tiny: Path, tmp_path: Path) -> None:
    whole = RewardModel.create(tiny)
    whole.save(tmp_path / "saved", tiny)
    half = RewardModel.load(tmp_path / "saved", torch.bfloat16)
    assert next(half.backbone.parameters()).dtype == torch.bfloat16
    found = scores(half, encoded(tiny))
    assert found.dtype == torch.float32
    assert (found - scores(whole, encoded(tiny))).abs().max() < 0.2


def test_a_head_of_token_rewards_reads_the_last_token(tiny: Path) -> None:
    with pytest.raises(ConfigError, match="expected 'last'"):
        RewardModel.create(tiny, "proto_tokens", pooling="mean")
