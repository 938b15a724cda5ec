"""Heads: their maps against numpy, members that differ, and options that are checked."""

from math import sqrt

import numpy as np
import pytest
import torch

from sparring.judges.reward.heads import HEADS, make_head
from sparring.loop.errors import ConfigError

FEATURES = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
SMALL = {"proto": {"count": 2, "dim": 4, "growth": 1}, "proto_tokens": {"count": 2, "length": 9, "growth": 1}}


def test_linear_is_a_dot_product_without_bias() -> None:
    head = make_head("linear", 12, 3, {})
    weight = dict(head.named_parameters())
    assert list(weight) == ["score.weight"]
    found = head(FEATURES).detach().numpy()
    assert found == pytest.approx(FEATURES.numpy() @ weight["score.weight"].detach().numpy().T, abs=1e-6)


def test_linear_starts_small() -> None:
    """std 1/sqrt(D + 1) (2403.17031): of 20,000 weights, to a few percent."""
    assert make_head("linear", 20000, 0, {}).score.weight.std().item() == pytest.approx(1 / sqrt(20001), rel=0.03)  # type: ignore[union-attr,operator]


def test_mlp_is_one_hidden_layer() -> None:
    head = make_head("mlp", 12, 0, {"hidden": 7}).eval()
    w = {name: p.detach().numpy().astype(np.float64) for name, p in head.named_parameters()}
    hidden = np.maximum(FEATURES.numpy() @ w["hidden.weight"].T + w["hidden.bias"], 0)
    assert head(FEATURES).detach().numpy() == pytest.approx(hidden @ w["score.weight"].T, abs=1e-6)
    assert make_head("mlp", 12, 0, {}).hidden.weight.shape == (1024, 12)  # type: ignore[union-attr]


def test_mlp_drops_features_in_training_only() -> None:
    head = make_head("mlp", 12, 0, {"hidden": 7, "dropout": 0.5})
    torch.manual_seed(0)
    assert not torch.equal(head(FEATURES), head(FEATURES))
    head.eval()
    assert torch.equal(head(FEATURES), head(FEATURES))


def test_members_of_multi_differ_by_their_seed_and_are_linear() -> None:
    head = make_head("multi", 12, 0, {"members": 4})
    assert head.members == 4
    scores = head(FEATURES)
    assert scores.shape == (5, 4)
    weights = torch.cat(list(head.parameters()))
    assert torch.allclose(scores, FEATURES @ weights.T, atol=1e-6)
    assert len({tuple(row) for row in weights.tolist()}) == 4


@pytest.mark.parametrize("kind", sorted(HEADS))
def test_a_seed_gives_one_head_and_leaves_the_global_generator_alone(kind: str) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    one, again, other = (make_head(kind, 12, seed, SMALL.get(kind, {})).eval() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), wanted)
    assert torch.equal(one(FEATURES), again(FEATURES))
    assert not torch.equal(one(FEATURES), other(FEATURES))
    assert one(FEATURES).shape == (5, one.members)


def test_names_and_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="did you mean 'linear'"):
        make_head("liner", 12, 0, {})
    with pytest.raises(ConfigError, match=r"no option 'member'.*did you mean 'members'"):
        make_head("multi", 12, 0, {"member": 3})
    with pytest.raises(ConfigError, match="at least 2"):
        make_head("multi", 12, 0, {"members": 1})
    with pytest.raises(ConfigError, match="keep and alpha in"):
        make_head("proto", 12, 0, {"keep": 1.5})
    with pytest.raises(ConfigError, match="at least 3"):
        make_head("proto_tokens", 12, 0, {"length": 2})
