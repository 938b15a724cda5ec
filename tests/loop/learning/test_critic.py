"""The value model: what it reads, where it starts, how it is kept (pitfalls 13, 27, 28, 55)."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sparring.judges.reward.model import RewardModel
from sparring.loop.errors import DataError
from sparring.loop.learning.batches import Row, collate
from sparring.loop.learning.checkpoint import load_model, save_model, weights_sha256
from sparring.loop.learning.critic import FOLDER, Critic, token_values
from tests.helpers.reward_backbones import build_tiny_encoder
from tests.helpers.tiny import build_tiny_model

CPU = torch.device("cpu")
ROWS = [
    Row([5, 6, 7], ([10, 11, 12, 13], [20], [30, 31])),
    Row([40, 41, 42, 43, 44, 45], ([50, 51, 52],)),
]


@pytest.fixture(scope="module")
def critic(tiny: Path) -> Critic:
    return Critic.start(tiny, tiny, seed=3)


@pytest.fixture(scope="module")
def reward_model(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear reward model that has moved away from the policy it was made from."""
    model = RewardModel.create(tiny, seed=11)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.mul_(1.1)
    folder = tmp_path_factory.mktemp("reward") / "linear"
    model.save(folder, tiny)
    return folder


def values(critic: Critic, *rows: Row) -> np.ndarray:
    with torch.no_grad():
        return token_values(critic, collate(rows)).numpy()


def test_a_value_is_read_where_its_token_is_predicted(critic: Critic, tiny: Path) -> None:
    # Each answer alone behind its prompt, in the whole language model: the state before its t-th token is the last
    # hidden state at the token before.
    language_model, expected = load_model(tiny, CPU), []
    weight, bias = critic.head.weight.detach().numpy()[0], critic.head.bias.item()
    for row in ROWS:
        for tokens in row.completions:
            with torch.no_grad():
                ids = torch.tensor([[*row.prompt, *tokens]])
                hidden = language_model(ids, output_hidden_states=True).hidden_states[-1][0].numpy()
            n = len(row.prompt)
            expected += [hidden[n - 1 + t] @ weight + bias for t in range(len(tokens))]
    np.testing.assert_allclose(values(critic, *ROWS), expected, rtol=1e-3, atol=2e-5)


def test_padding_and_neighbours_change_nothing(critic: Critic) -> None:
    together = values(critic, *ROWS)
    alone = [values(critic, Row(row.prompt, (tokens,))) for row in ROWS for tokens in row.completions]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-3, atol=2e-5)


def test_a_value_does_not_see_its_own_token_nor_later_ones(critic: Critic) -> None:
    first, second = values(critic, Row([5, 6], ([10, 11, 12],))), values(critic, Row([5, 6], ([10, 99, 98],)))
    np.testing.assert_array_equal(first[:2], second[:2])
    assert first[2] != second[2]


def test_a_fresh_head(critic: Critic, tiny: Path) -> None:
    drawn = torch.randn(1, 64, generator=torch.Generator().manual_seed(3)) / 65**0.5
    np.testing.assert_allclose(critic.head.weight.detach(), drawn, rtol=1e-5)
    assert critic.head.bias.item() == 0 and critic.head.weight.dtype == torch.float32
    assert not torch.equal(Critic.start(tiny, tiny, seed=4).head.weight, critic.head.weight)
    state = torch.random.get_rng_state()
    again = Critic.start(tiny, tiny, seed=3)
    assert torch.equal(again.head.weight, critic.head.weight)
    assert torch.equal(torch.random.get_rng_state(), state) and not again.training


def test_from_a_reward_model_it_starts_with_its_scores(reward_model: Path, tiny: Path) -> None:
    critic, model = Critic.start(reward_model, tiny, seed=0), RewardModel.load(reward_model)
    row = Row([5, 6, 7], ([10, 11, 12, 13, 14],))
    ids = torch.tensor([[5, 6, 7, 10, 11, 12, 13]])  # the state before the last token has seen these
    with torch.no_grad():
        score = model(ids, torch.ones_like(ids)).item()
    assert values(critic, row)[-1] == pytest.approx(score, rel=1e-4)
    assert critic.head.bias.item() == 0


def test_from_another_kind_of_head_only_the_backbone_is_taken(tiny: Path, tmp_path: Path) -> None:
    model = RewardModel.create(tiny, "mlp", {"hidden": 64})
    with torch.no_grad():
        next(model.backbone.parameters()).add_(1.0)
    model.save(tmp_path / "mlp", tiny)
    critic, fresh = Critic.start(tmp_path / "mlp", tiny, seed=3), Critic.start(tiny, tiny, seed=3)
    assert torch.equal(critic.head.weight, fresh.head.weight)
    moved, kept = (next(c.backbone.parameters()) for c in (critic, fresh))
    assert torch.equal(moved, kept + 1.0)


def test_it_is_saved_below_the_policy(critic: Critic, tiny: Path, tmp_path: Path) -> None:
    policy, folder = load_model(tiny, CPU), tmp_path / "round-0001"
    saved = save_model(policy, tiny, folder, lambda partial: critic.save(partial / FOLDER))
    assert sorted(path.name for path in (folder / FOLDER).iterdir()) == [
        "config.json",
        "model.safetensors",
        "value_head.safetensors",
    ]
    assert [path.name for path in folder.glob("*.safetensors")] == ["model.safetensors"]  # all that an engine reads
    assert saved == save_model(policy, tiny, tmp_path / "bare") == weights_sha256(folder)
    loaded = Critic.load(folder / FOLDER)
    np.testing.assert_array_equal(values(loaded, *ROWS), values(critic, *ROWS))
    assert not loaded.training


def test_a_trained_critic_is_what_comes_back(tiny: Path, tmp_path: Path) -> None:
    critic = Critic.start(tiny, tiny, seed=3)
    before = values(critic, *ROWS)
    loss = (token_values(critic, collate(ROWS)) - 1.0).square().mean()
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in critic.parameters())
    with torch.no_grad():
        for p in critic.parameters():
            assert p.grad is not None
            p -= 1e-4 * p.grad
    after = values(critic, *ROWS)
    assert np.square(after - 1).mean() < np.square(before - 1).mean()
    critic.save(tmp_path / FOLDER)
    np.testing.assert_array_equal(values(Critic.load(tmp_path / FOLDER), *ROWS), after)


def test_the_head_computes_in_float32(critic: Critic) -> None:
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = token_values(critic, collate(ROWS))
    assert found.dtype == torch.float32
    assert not torch.equal(found, found.bfloat16().float())


def test_what_a_critic_cannot_start_from(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no critic: value_head"):
        Critic.load(tiny)
    with pytest.raises(DataError, match="holds no model"):
        Critic.start(tmp_path, tiny, seed=0)


def test_a_model_of_other_tokens_is_refused(tiny: Path, tmp_path: Path) -> None:
    other = build_tiny_model(tmp_path / "other")
    path = other / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(DataError, match=r"other tokens than the policy .* \(2 differ, such as 'a'\)"):
        Critic.start(other, tiny, seed=0)


def test_an_encoder_is_refused(tiny: Path, tmp_path: Path) -> None:
    encoder = build_tiny_encoder(tmp_path / "bert")
    for file in tiny.glob("tokenizer*"):
        shutil.copy2(file, encoder)
    with pytest.raises(DataError, match="holds a bert; expected a causal language model"):
        Critic.start(encoder, tiny, seed=0)


def test_a_reward_model_with_adapters_is_refused(tiny: Path, tmp_path: Path) -> None:
    model = RewardModel.create(tiny, "multi", {"members": 2}, adapters=2)
    model.save(tmp_path / "adapters", tiny)
    with pytest.raises(DataError, match="reward model with adapters"):
        Critic.start(tmp_path / "adapters", tiny, seed=0)


def test_missing_weights_are_refused(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "holes")
    weights = load_file(tiny / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "holes" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"lacks 1 weights of its llama, such as layers.1.mlp.up_proj.weight"):
        Critic.start(tmp_path / "holes", tiny, seed=0)
