"""The losses of the policy gradient against closed forms written apart from them (pitfalls 17, 53, 54, 55)."""

from itertools import product
from typing import get_args

import numpy as np
import pytest
import torch

from sparring.loop.errors import ConfigError
from sparring.loop.learning.policy_gradient import (
    Clipping,
    Normalisation,
    TisMode,
    Totals,
    importance_weights,
    mismatch,
    normalised,
    policy_losses,
    policy_metrics,
    surrogate,
    value_losses,
)
from tests.helpers.rollouts import COMPLETION, LENGTHS, N, S, parts, rollout

ALL = Totals(S, N)
INDEX = torch.from_numpy(COMPLETION)
CLIPPINGS = [
    Clipping(),
    Clipping(low=0.1, high=0.3),
    Clipping(dual=1.5),
    Clipping(low=0.2, high=0.28, dual=3.0),
    Clipping(low=None),
    Clipping(low=None, dual=1.1),
]


def drift(scale: float = 0.3, seed: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-probs of a policy some way from the old one, the old ones, and advantages, each (N,)."""
    random, old = np.random.default_rng(seed), rollout().old.numpy()
    return old + random.normal(0, scale, N), old, random.normal(0, 1, N)


def expected_surrogate(ratio: float, a: float, c: Clipping) -> float:
    objective = ratio * a
    if c.low is not None:
        high = 1 + (c.high if c.high is not None else c.low)
        objective = min(objective, min(max(ratio, 1 - c.low), high) * a)
    if c.dual is not None and a < 0:
        objective = max(objective, c.dual * a)
    return -objective


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def close(found: torch.Tensor, expected: object) -> None:
    np.testing.assert_allclose(found.detach().numpy(), np.array(expected), rtol=1e-12, atol=1e-14)


# Surrogate


@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_surrogate_of_tokens(clipping: Clipping) -> None:
    policy, old, advantages = drift()
    expected = [expected_surrogate(np.exp(p - o), a, clipping) for p, o, a in zip(policy, old, advantages, strict=True)]
    close(policy_losses(*tensors(policy, old, advantages), INDEX, clipping), expected)


@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_surrogate_of_answers(clipping: Clipping) -> None:
    policy, old, _ = drift(0.2)
    a = np.random.default_rng(6).normal(0, 1, S)
    losses = [
        expected_surrogate(np.exp(p.sum() - o.sum()), each, clipping)
        for p, o, each in zip(parts(policy), parts(old), a, strict=True)
    ]
    whole = Clipping("sequence", clipping.low, clipping.high, clipping.dual)
    found = policy_losses(*tensors(policy, old, a[COMPLETION]), INDEX, whole)
    close(found, np.array([loss / n for loss, n in zip(losses, LENGTHS, strict=True)])[COMPLETION])
    close(normalised(found, INDEX, ALL, normalisation="sum"), np.mean(losses))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.1, 2.0, -2.2, -2.2),  # inside: -A r, and r's derivative in log r is r
        (1.5, 2.0, -2.4, 0.0),  # up enough
        (0.5, 2.0, -1.0, -1.0),  # a good answer that has lost is pulled back, however far
        (0.5, -2.0, 1.6, 0.0),  # down enough
        (1.5, -2.0, 3.0, 3.0),  # a bad answer that has gained is pushed back
    ],
)
def test_surrogate_by_hand(ratio: float, advantage: float, loss: float, slope: float) -> None:
    x = torch.tensor([ratio], dtype=torch.float64).log().requires_grad_()
    found = surrogate(x, torch.tensor([advantage], dtype=torch.float64), Clipping(low=0.2))
    found.sum().backward()
    assert x.grad is not None
    assert (found.item(), x.grad.item()) == (pytest.approx(loss), pytest.approx(slope))


def test_dual_clip_stops_a_push_back_at_c() -> None:
    x = torch.tensor([np.log(5.0), np.log(5.0)]).requires_grad_()
    found = surrogate(x, torch.tensor([-2.0, 2.0]), Clipping(dual=3.0))
    found.sum().backward()
    assert x.grad is not None
    assert found.tolist() == pytest.approx([6.0, -2.4]) and x.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("clipping", [*CLIPPINGS, Clipping("sequence")])
def test_the_first_minibatch(clipping: Clipping) -> None:
    """E.6, 10: the ratio is 1, nothing is clipped, no KL, and the gradient is -A grad log pi: to the last bit."""
    _, old, advantages = drift()
    a = torch.from_numpy(advantages).float()
    if clipping.level == "sequence":
        a = a[:S][INDEX]
    policy, before = torch.from_numpy(old).float().requires_grad_(), torch.from_numpy(old).float()
    policy_losses(policy, before, a, INDEX, clipping).sum().backward()
    counts = torch.tensor(LENGTHS)[INDEX]
    assert policy.grad is not None
    if clipping.level == "token":
        assert torch.equal(policy.grad, -a)
    else:  # an answer's loss is on its tokens in parts; each token has the answer's gradient
        np.testing.assert_allclose(policy.grad, -a, rtol=1e-6)
        assert torch.equal(policy_losses(policy, before, a, INDEX, clipping), -a / counts)
    found = policy_metrics(policy, before, a, INDEX, ALL, clipping)
    assert {name: round(float(value), 6) for name, value in found.items()} == {
        "approx_kl_k1": 0.0,
        "approx_kl_k2": 0.0,
        "approx_kl_k3": 0.0,
        "ratio": 1.0,
        "clip_share": 0.0,
    }
    assert found["approx_kl_k3"] == 0 == found["clip_share"]
    assert not any(value.requires_grad for value in found.values())


@pytest.mark.parametrize(("level", "clipping"), list(product(["token", "sequence"], CLIPPINGS)))
def test_extreme_ratios_are_finite(level: str, clipping: Clipping) -> None:
    clipping = Clipping(level, clipping.low, clipping.high, clipping.dual)  # type: ignore[arg-type]
    policy = torch.linspace(-3000.0, 0.0, N).requires_grad_()
    old, a = policy.detach().flip(0), torch.linspace(-1.0, 1.0, S)[INDEX]
    losses = policy_losses(policy, old, a, INDEX, clipping)
    losses.sum().backward()
    assert policy.grad is not None and torch.isfinite(policy.grad).all() and torch.isfinite(losses).all()
    found = policy_metrics(policy, old, a, INDEX, ALL, clipping)
    assert all(torch.isfinite(value) for value in found.values())
    assert all(torch.isfinite(importance_weights(old, policy, INDEX, mode=mode)).all() for mode in get_args(TisMode))


def test_metrics() -> None:
    policy, old, advantages = drift()
    ratio = np.exp(policy - old)
    clipped = ((ratio > 1.2) & (advantages > 0)) | ((ratio < 0.8) & (advantages < 0))
    found = policy_metrics(*tensors(policy, old, advantages), INDEX, ALL)
    assert 0.2 < clipped.mean() < 0.8
    assert float(found["clip_share"]) == pytest.approx(clipped.mean())
    assert float(found["ratio"]) == pytest.approx(ratio.mean())
    assert float(found["approx_kl_k1"]) == pytest.approx((old - policy).mean())
    assert float(found["approx_kl_k2"]) == pytest.approx(((old - policy) ** 2).mean() / 2)
    assert float(found["approx_kl_k3"]) == pytest.approx((ratio - 1 - (policy - old)).mean())


def test_metrics_of_answers() -> None:
    policy, old, _ = drift(0.2)
    ratio = np.array([np.exp(p.sum() - o.sum()) for p, o in zip(parts(policy), parts(old), strict=True)])
    a = (ratio - 1) * np.array([1, 1, -1, 1, -1, 1, 1])
    clipped = ((ratio > 1.1) & (a > 0)) | ((ratio < 0.9) & (a < 0))
    assert 0 < clipped.mean() < 1
    found = policy_metrics(*tensors(policy, old, a[COMPLETION]), INDEX, ALL, Clipping("sequence", 0.1))
    assert float(found["clip_share"]) == pytest.approx(clipped.mean())
    assert float(found["ratio"]) == pytest.approx(ratio.mean())


# Normalisation


def test_normalisations() -> None:
    losses = np.random.default_rng(7).normal(0, 1, N)
    expected = {
        "token": losses.sum() / N,
        "sequence": np.mean([part.mean() for part in parts(losses)]),
        "constant": np.mean([part.sum() / 40 for part in parts(losses)]),
        "sum": np.mean([part.sum() for part in parts(losses)]),
    }
    assert expected.keys() == set(get_args(Normalisation))
    for name, value in expected.items():
        close(normalised(torch.from_numpy(losses), INDEX, ALL, normalisation=name, max_tokens=40), value)
    assert len({round(value, 6) for value in expected.values()}) == 4


def test_what_normalisation_refuses() -> None:
    with pytest.raises(ConfigError, match="set max_tokens"):
        normalised(torch.zeros(N), INDEX, ALL, normalisation="constant")
    with pytest.raises(ConfigError, match="no normalisation 'mean'"):
        normalised(torch.zeros(N), INDEX, ALL, normalisation="mean")  # type: ignore[arg-type]


# Values


@pytest.mark.parametrize("clip", [0.2, 0.5, None])
def test_value_loss(clip: float | None) -> None:
    random = np.random.default_rng(8)
    values, old, returns = (random.normal(0, 1, N) for _ in range(3))
    expected = []
    for v, o, g in zip(values, old, returns, strict=True):
        near = v if clip is None else min(max(v, o - clip), o + clip)
        expected.append(0.5 * max((v - g) ** 2, (near - g) ** 2))
    close(value_losses(*tensors(values, old, returns), clip=clip), expected)


def test_value_clipping_is_about_the_old_value() -> None:
    # V went from 0 to 0.5, the return is 1: as if at 0.2, and without a gradient.
    v = torch.tensor([0.5]).requires_grad_()
    found = value_losses(v, torch.tensor([0.0]), torch.tensor([1.0]), clip=0.2)
    found.sum().backward()
    assert found.item() == pytest.approx(0.32) and v.grad is not None and v.grad.item() == 0


# Sampler and trainer


def test_importance_weights() -> None:
    r = rollout()
    assert r.sampler is not None
    token = np.exp((r.old - r.sampler).numpy())
    whole = np.array([np.prod(part) for part in parts(token)])[COMPLETION]
    for level, weight in (("token", token), ("sequence", whole)):
        assert (weight > 1.4).any() and (weight < 1 / 1.4).any()
        truncate, mask = (
            importance_weights(r.old, r.sampler, INDEX, cap=1.4, mode=f"{level}_{kind}")  # type: ignore[arg-type]
            for kind in ("truncate", "mask")
        )
        close(truncate, np.minimum(weight, 1.4))
        close(mask, np.where((weight >= 1 / 1.4) & (weight <= 1.4), weight, 0.0))
    with pytest.raises(ConfigError, match="no tis_mode 'truncate'"):
        importance_weights(r.old, r.sampler, INDEX, mode="truncate")  # type: ignore[arg-type]


def test_importance_weights_have_no_gradient_and_are_1_where_nothing_differs() -> None:
    old = rollout().old.clone().requires_grad_()
    for mode in get_args(TisMode):
        found = importance_weights(old, old.detach(), INDEX, mode=mode)
        assert not found.requires_grad and torch.equal(found, torch.ones(N, dtype=torch.float64))


def logits(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 1, shape)).log_softmax(-1)


@pytest.mark.parametrize("cap", [1e6, 1.3])
def test_weighted_samples_of_the_engine_stand_for_the_policy(cap: float) -> None:
    """Over all answers of two tokens out of three, exactly: E_sampler[w f] = E_policy[f], or min(pi, cap mu) f."""
    first, then = logits(1, 3), logits(2, 3, 3)
    first_off, then_off = logits(3, 3), logits(4, 3, 3)
    answers = list(product(range(3), repeat=2))
    old = torch.stack([torch.stack([first[a], then[a, b]]) for a, b in answers])
    sampler = torch.stack([torch.stack([first_off[a], then_off[a, b]]) for a, b in answers])
    completion = torch.arange(len(answers)).repeat_interleave(2)
    weight = importance_weights(old.flatten(), sampler.flatten(), completion, cap=cap, mode="sequence_truncate")
    f = np.random.default_rng(9).normal(0, 1, len(answers))
    pi, mu = old.sum(1).exp().numpy(), sampler.sum(1).exp().numpy()
    assert pi.sum() == pytest.approx(1) == mu.sum()
    assert (mu * weight[::2].numpy() * f).sum() == pytest.approx((np.minimum(pi, cap * mu) * f).sum())
    if cap > 1e3:
        assert (mu * weight[::2].numpy() * f).sum() == pytest.approx((pi * f).sum())
        assert (mu * f).sum() != pytest.approx((pi * f).sum(), rel=1e-2)  # without it, it is another number


def test_truncated_token_weights_are_unbiased_for_one_token_until_the_cap() -> None:
    old, sampler, f = logits(5, 6), logits(6, 6), np.random.default_rng(10).normal(0, 1, 6)
    mu, each = sampler.exp().numpy(), torch.arange(6)
    weight = importance_weights(old, sampler, each, cap=1e6).numpy()
    assert (mu * weight * f).sum() == pytest.approx((old.exp().numpy() * f).sum())
    capped = importance_weights(old, sampler, each, cap=1.1).numpy()
    assert (mu * capped * f).sum() == pytest.approx((np.minimum(old.exp().numpy(), 1.1 * mu) * f).sum())


def test_mismatch() -> None:
    r = rollout()
    assert r.sampler is not None
    z = (r.sampler - r.old).numpy()
    found = mismatch(r.old, r.sampler, cap=1.2)
    assert found == {
        "mismatch_abs": pytest.approx(np.abs(z).mean()),
        "mismatch_kl": pytest.approx((np.exp(-z) - 1 + z).mean()),
        "mismatch_capped": pytest.approx((np.exp(-z) > 1.2).mean()),
    }
    assert 0 < found["mismatch_capped"] < 1
    assert set(mismatch(r.old, r.old).values()) == {0.0}
