"""Every architecture is learned as its own forward computes it: masks, windows, states, scales, caps, merged rows."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sparring.loop.errors import ConfigError, DataError
from sparring.loop.learning.batches import Row, collate
from sparring.loop.learning.checkpoint import load_model
from sparring.loop.learning.critic import Critic, token_values
from sparring.loop.learning.forward import Forward, selected_logits
from sparring.loop.learning.forward_choice import batch_for, config_sha256, forward_of, settle
from sparring.loop.learning.logprobs import token_logprobs
from sparring.loop.types import Layout
from tests.helpers import zoo
from tests.helpers.learner_pairs import initial, make_learner, round_of, scored, unscored

CPU = torch.device("cpu")
# Those with a layer that keeps a state, looks back in chunks, or makes its mask itself.
SEPARATE = {
    "qwen3_next", "qwen3_5_text", "granitemoehybrid", "falcon_h1", "lfm2", "bamba", "jamba", "nemotron_h",
    "recurrent_gemma", "gpt_neo", "mamba", "mamba2", "falcon_mamba", "bloom", "mpt", "llama4_text", "zamba2",
}  # fmt: skip
EAGER = {"gemma2", "gpt_neo", "gptj", "gpt_oss", "mamba", "mamba2", "falcon_mamba", "bloom", "mpt"}
EXPERTS = {name for name, own in zoo.ARCHITECTURES.items() if any("experts" in key for key in own)}
LAYOUTS: list[Layout] = ["shared", "separate"]


def random_ids(count: int, seed: int) -> list[int]:
    return torch.randint(0, 256, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


ROWS = [  # longer than the window of 16, two and three completions, of other lengths
    Row(random_ids(23, 0), (random_ids(12, 1), random_ids(31, 2))),
    Row(random_ids(5, 3), (random_ids(40, 4), random_ids(9, 5), random_ids(1, 6))),
]


def of_the_model(folder: Path, rows: list[Row]) -> Tensor:
    """Log-probs by the model's own forward in its reference attention, one prompt with one completion at a time."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    found = []
    for row in rows:
        for tokens in row.completions:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*row.prompt, *tokens]])).logits[0].log_softmax(-1)
            found += [logits[len(row.prompt) + i - 1, token] for i, token in enumerate(tokens)]
    return torch.stack(found)


@pytest.fixture(scope="module", params=sorted(zoo.ARCHITECTURES))
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(architecture: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo.make(tmp_path_factory.mktemp("zoo") / architecture, architecture)


def test_what_is_decided(architecture: str, folder: Path) -> None:
    attention = "eager" if architecture in EAGER else "sdpa"
    layout: Layout = "separate" if architecture in SEPARATE else "shared"
    assert forward_of(load_model(folder, CPU)) == Forward(attention, layout, "positions")


def test_log_probs_equal_those_of_the_models_own_forward(architecture: str, folder: Path) -> None:
    model, wanted = load_model(folder, CPU), of_the_model(folder, ROWS)
    layouts = LAYOUTS if forward_of(model).layout == "shared" else ["separate"]
    for layout in layouts:
        with torch.no_grad():
            found = token_logprobs(model, collate(ROWS, layout))
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_an_answer_tells_nothing_to_the_other_answers(architecture: str, folder: Path) -> None:
    """Another chosen answer: the log-probs of the rejected ones are the same to the last bit.

    But an expert multiplies the tokens of all rows that are routed to it at once, and the number of rows of a matrix
    decides how its product is rounded.
    """
    model = load_model(folder, CPU)
    prompt, (chosen, *others) = ROWS[1].prompt, ROWS[1].completions
    changed = Row(prompt, (random_ids(len(chosen), 7), *others))
    with torch.no_grad():
        before, after = (token_logprobs(model, batch_for(model, [row])) for row in (ROWS[1], changed))
    n = len(chosen)
    assert not torch.equal(before[:n], after[:n])
    if architecture in EXPERTS:
        torch.testing.assert_close(before[n:], after[n:], atol=5e-6, rtol=0)
    else:
        assert torch.equal(before[n:], after[n:])


def test_a_round_is_learned_saved_and_loaded_again(architecture: str, folder: Path, tmp_path: Path) -> None:
    policy = initial(folder)
    learner = make_learner(tmp_path, lr=1e-3)
    pairs = scored(learner, policy, unscored(folder))
    candidate, _, (step,) = learner.learn(round_of(policy), pairs)
    assert step.metrics["loss"] == pytest.approx(0.6931472, abs=1e-6)  # the policy is its reference: ln 2
    assert candidate.weights_sha256 != policy.weights_sha256
    again = load_model(Path(candidate.path), CPU)
    with torch.no_grad():
        found = token_logprobs(again, batch_for(again, ROWS))
    torch.testing.assert_close(found, of_the_model(Path(candidate.path), ROWS), atol=1e-4, rtol=0)
    assert not torch.allclose(found, of_the_model(folder, ROWS), atol=1e-4)
    longer = make_learner(tmp_path / "more", lr=1e-3, epochs=5)
    improved, _, steps = longer.learn(round_of(policy), pairs)
    assert steps[-1].metrics["loss"] < 0.6 and improved.id


def test_a_critic_sees_no_other_answer(architecture: str, folder: Path) -> None:
    critic = Critic.start(folder, folder, seed=0)
    layout = forward_of(critic.backbone).layout
    assert layout == ("separate" if architecture in SEPARATE else "shared")
    with torch.no_grad():
        together = token_values(critic, batch_for(critic.backbone, ROWS))
        alone = [Row(row.prompt, (tokens,)) for row in ROWS for tokens in row.completions]
        apart = torch.cat([token_values(critic, collate([row], "separate")) for row in alone])
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-4)


def test_a_model_that_looks_ahead_is_refused_by_name(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, BertConfig

    config = BertConfig(
        vocab_size=258, hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=2
    )
    model = AutoModelForCausalLM.from_config(config)
    draw = torch.Generator().manual_seed(0)
    for parameter in (p for p in model.parameters() if p.dim() > 1):
        parameter.data.normal_(0, 0.15, generator=draw)
    model.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"BertLMHeadModel.*nats per token"):
        forward_of(load_model(tmp_path, CPU))


def test_what_was_decided_when_a_run_began_is_used_for_its_later_models(tmp_path: Path) -> None:
    """Another machine could decide otherwise: what is settled counts."""
    folder = zoo.make(tmp_path, "llama")
    first = load_model(folder, CPU)
    decided, key = forward_of(first), config_sha256(first)
    settle(key, Forward("eager", "separate", "all"))
    try:
        again = load_model(folder, CPU)
    finally:
        settle(key, decided)
    assert forward_of(again) == Forward("eager", "separate", "all")
    assert again.config._attn_implementation == "eager"
    assert batch_for(again, ROWS).input_ids.shape[0] == 5


def test_only_the_positions_of_completions_are_projected(tmp_path: Path) -> None:
    model, shapes = load_model(zoo.make(tmp_path, "granite"), CPU), []
    batch = batch_for(model, ROWS)
    model.get_output_embeddings().register_forward_hook(lambda head, given, out: shapes.append(tuple(out.shape)))
    with torch.no_grad():
        few, every = selected_logits(model, batch, "positions"), selected_logits(model, batch, "all")
    assert shapes == [(1, 93, 258), (2, batch.input_ids.shape[1], 258)]
    torch.testing.assert_close(few, every, atol=1e-5, rtol=0)


def test_an_architecture_without_a_causal_language_model_is_refused_by_name(tmp_path: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    T5ForConditionalGeneration(T5Config(vocab_size=258, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"t5 \(T5ForConditionalGeneration\)"):
        load_model(tmp_path, CPU)


def test_missing_weights_are_refused_by_name(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = zoo.make(tmp_path, "llama")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"lacks 1 weights of its LlamaForCausalLM, such as model\.layers\.1\.mlp"):
        load_model(folder, CPU)
