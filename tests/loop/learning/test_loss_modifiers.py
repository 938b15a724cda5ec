"""Modifiers and regularisers, by hand and by what they mean for a loss."""

from dataclasses import replace
from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch

from sparring.loop.errors import ConfigError, DataError
from sparring.loop.learning.losses import (
    LOSSES,
    Logps,
    bind,
    bind_modifiers,
    bind_regularisers,
)
from tests.helpers.logps import OF_DIFFERENCE, REFERENCE_FREE, columns, extremes, logps, pair_of


def modify(logps: Logps, loss: str = "sigmoid", **entry: Any) -> Logps:
    return bind_modifiers([entry], loss)(logps)


def value(name: str, logps: Logps, **options: Any) -> np.ndarray:
    found: np.ndarray = bind(name, **options)(logps).detach().numpy()
    return found


def test_no_modifier_changes_nothing() -> None:
    found = logps(columns())
    assert bind_modifiers([], "simpo")(found) is found


DIVERGENCES = [  # the score of a log-ratio of 2, and its slope there
    ({"divergence": "reverse_kl"}, 2.0, 1.0),
    ({"divergence": "forward_kl"}, 1 - exp(-2), exp(-2)),
    ({"divergence": "js"}, log(2 / (1 + exp(-2))), 1 / (1 + exp(2))),
    ({"divergence": "alpha", "alpha": 0.3}, (1 - exp(-0.6)) / 0.3, exp(-0.6)),
]


@pytest.mark.parametrize(("options", "score", "slope"), DIVERGENCES)
def test_f_divergence_by_hand(options: dict[str, Any], score: float, slope: float) -> None:
    pair = pair_of(2.0)
    policy = pair.policy_chosen.requires_grad_()
    found = modify(pair, kind="f_divergence", **options)
    assert found.chosen_ratio.item() == pytest.approx(score)
    assert found.rejected_ratio.item() == pytest.approx(0)  # where policy and reference agree
    assert found.policy_chosen is pair.policy_chosen
    (gradient,) = torch.autograd.grad(found.gap.sum(), policy)
    assert gradient.item() == pytest.approx(slope)


def test_far_exponentials_go_on_as_straight_lines() -> None:
    pair = pair_of(-33.0)
    policy = pair.policy_chosen.requires_grad_()
    found = modify(pair, kind="f_divergence", divergence="forward_kl")
    assert found.chosen_ratio.item() == pytest.approx(1 - exp(30) * (1 + 3))
    assert torch.autograd.grad(found.gap.sum(), policy)[0].item() == pytest.approx(exp(30))


def test_alpha_divergence_lies_between_both_kls() -> None:
    found = logps(columns())
    for alpha, kind in ((1e-9, "reverse_kl"), (1 - 1e-9, "forward_kl")):
        near = modify(found, kind="f_divergence", divergence="alpha", alpha=alpha)
        exact = modify(found, kind="f_divergence", divergence=kind)
        np.testing.assert_allclose(near.gap.numpy(), exact.gap.numpy(), rtol=1e-5)


@pytest.mark.parametrize("divergence", ["forward_kl", "js", "alpha"])
@pytest.mark.parametrize("name", sorted(OF_DIFFERENCE))
def test_f_divergence_stays_finite(divergence: str, name: str) -> None:
    far = logps({k: v.astype(np.float32) for k, v in extremes().items()})
    policy = far.policy_chosen.requires_grad_()
    values = bind(name)(modify(far, kind="f_divergence", divergence=divergence))
    assert torch.isfinite(values).all()
    assert torch.isfinite(torch.autograd.grad(values.sum(), policy)[0]).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_margin_is_what_chosen_must_be_ahead_by(name: str) -> None:
    """In the unit of what the loss compares: it is the loss of a pair whose score is that much smaller."""
    found = logps(
        columns() | {"policy_chosen": np.linspace(-90, -30, 64), "policy_rejected": np.linspace(-70, -80, 64)}
    )
    apart = modify(found, name, kind="margin", scale=0.5)
    half = found.margin / 4
    per_token = {"simpo": True, "sigmoid_norm": True}.get(name, False)
    chosen, rejected = (found.chosen_tokens, found.rejected_tokens) if per_token else (1, 1)
    if name in ("cpo", "orpo", "asft", "dpop"):  # they also look at the likelihood, which a margin does not touch
        assert not np.allclose(value(name, apart), value(name, found))
        return
    shifted = replace(
        found,
        policy_chosen=found.policy_chosen - half * chosen,
        policy_rejected=found.policy_rejected + half * rejected,
    )
    np.testing.assert_allclose(value(name, apart), value(name, shifted), rtol=1e-9)
    assert not np.allclose(value(name, apart), value(name, found))


def test_a_margin_leaves_likelihoods_alone() -> None:
    found = logps(columns())
    apart = modify(found, kind="margin")
    for name, options in (("cpo", {"alpha": 3.0}), ("orpo", {}), ("asft", {})):
        free = {**options, "beta": 0} if name != "cpo" else {"alpha": 3.0, "beta": 1e-12}
        np.testing.assert_allclose(value(name, apart, **free), value(name, found, **free), rtol=1e-9)
    ahead = pair_of(2.0, margin=20.0, chosen_tokens=1, rejected_tokens=1)
    assert value("dpop", modify(ahead, kind="margin")) == pytest.approx(-log(1 / (1 + exp(0.3 * 18))))  # no penalty
    assert value("cpo", modify(ahead, kind="margin"), alpha=0, beta=1) == pytest.approx(log(1 + exp(18)))
    twice = bind_modifiers([{"kind": "margin"}, {"kind": "margin", "scale": 2}], "ipo")(ahead)
    assert value("ipo", twice) == pytest.approx((2 - 60 - 5) ** 2)
    assert value("ipo", modify(ahead, kind="margin"), length_norm=True) == pytest.approx((2 - 20 - 5) ** 2)
    assert value("rpo_nv", modify(ahead, kind="margin"), distance="sq", beta=1) == pytest.approx((2 - 20 - 20) ** 2)


def test_length_is_r_dpo() -> None:
    found = logps(columns())
    added = modify(found, kind="length", alpha=0.2)
    np.testing.assert_allclose(
        value("sigmoid", added, beta=0.5), value("length_regularised", found, beta=0.5, alpha=0.1), rtol=1e-12
    )
    # 2 nats ahead and 2 tokens longer at 0.2 a token: 2.4
    assert value("ipo", modify(pair_of(2.0), kind="length", alpha=0.2)) == pytest.approx((2.4 - 5) ** 2)


def test_clip_pushes_no_further_than_its_bounds() -> None:
    def clipped(chosen: float, rejected: float) -> tuple[list[float], list[float]]:
        pair = pair_of(0.0, policy_chosen=chosen - 10.0, policy_rejected=rejected - 10.0)
        sides = [side.requires_grad_() for side in (pair.policy_chosen, pair.policy_rejected)]
        found = modify(pair, kind="clip", beta=0.5, chosen=2.0, rejected=1.0)  # log-ratios up to 4, down to -2
        gradients = torch.autograd.grad(bind("sigmoid")(found).sum(), sides, materialize_grads=True)
        return [found.chosen_ratio.item(), found.rejected_ratio.item()], [np.sign(g.item()) for g in gradients]

    assert clipped(3.0, -1.0) == ([3.0, -1.0], [-1, 1])
    assert clipped(9.0, -1.0) == ([4.0, -1.0], [0, 1])
    assert clipped(3.0, -9.0) == ([3.0, -2.0], [-1, 0])
    assert clipped(-9.0, 9.0) == ([-9.0, 9.0], [-1, 1])


def test_wpo_weighs_by_what_the_policy_would_write() -> None:
    pair = pair_of(6.0, weight=0.5)  # -4 of 4 tokens and -10 of 2
    policy = pair.policy_chosen.requires_grad_()
    found = modify(pair, kind="wpo")
    assert found.weight.item() == pytest.approx(0.5 * exp(-1 - 5))
    assert policy.requires_grad and not found.weight.requires_grad
    # Rounding can bring a log-prob of nearly 0 above it.
    assert modify(pair_of(0.0, policy_chosen=1e-3, policy_rejected=0.0), kind="wpo").weight.item() == 1
    after = bind_modifiers([{"kind": "f_divergence", "divergence": "forward_kl"}, {"kind": "wpo"}], "sigmoid")(pair)
    assert after.weight.item() == found.weight.item()


def test_modifiers_without_a_meaning_are_refused() -> None:
    clip = {"kind": "clip", "beta": 0.1, "chosen": 1.0, "rejected": 1.0}
    for name in REFERENCE_FREE & LOSSES.keys() | {"aot"}:
        with pytest.raises(ConfigError, match=f"modifier 'clip' has no meaning for loss '{name}'; it has one for "):
            bind_modifiers([{"kind": "wpo"}, clip], name)
    divergence = {"kind": "f_divergence", "divergence": "js"}
    with pytest.raises(ConfigError, match="modifier 'f_divergence' has no meaning for loss 'kto'"):
        bind_modifiers([divergence], [{"kind": "sigmoid"}, {"kind": "kto"}])
    for name in LOSSES:  # those that have one do something
        if name in OF_DIFFERENCE:
            found = logps(columns())
            assert not np.allclose(value(name, modify(found, name, **divergence)), value(name, found))


def test_nll_of_chosen_by_hand() -> None:
    pair = pair_of(2.0)  # log P(chosen) = -8 of 4 tokens
    assert bind_regularisers([{"kind": "nll_chosen", "weight": 0.5}])(pair).item() == 1
    assert bind_regularisers([{"kind": "nll_chosen", "weight": 0.5, "reduce": "sum"}])(pair).item() == 4
    both = [{"kind": "nll_chosen", "weight": 1, "reduce": reduce} for reduce in ("sum", "mean")]
    assert bind_regularisers(both)(pair).item() == 10
    assert bind_regularisers([])(pair).tolist() == [0.0]


def test_nll_of_a_rationale_by_hand() -> None:
    pair = pair_of(2.0, policy_rationale=-30.0, rationale_tokens=20.0)
    assert bind_regularisers([{"kind": "nll_rationale", "weight": 4}])(pair).item() == 6
    with pytest.raises(DataError, match="'nll_rationale' needs the log-prob of each pair's rationale"):
        bind_regularisers([{"kind": "nll_rationale", "weight": 4}])(pair_of(2.0))


def test_optimism_pushes_the_reference_sample_down() -> None:
    pair = pair_of(2.0, policy_sample=-7.0, reference_sample=-10.0, sample_tokens=5.0)
    assert pair.policy_sample is not None
    policy = pair.policy_sample.requires_grad_()
    value = bind_regularisers([{"kind": "optimism", "weight": 0.1}])(pair)
    assert value.item() == pytest.approx(0.3)
    assert torch.autograd.grad(value.sum(), policy)[0].item() == pytest.approx(0.1)  # a smaller loss where less likely
    with pytest.raises(DataError, match=r"'optimism' needs a third answer .* choose a pair builder"):
        bind_regularisers([{"kind": "optimism", "weight": 0.1}])(pair_of(2.0))


def test_optimism_and_likelihood_of_one_answer_cancel() -> None:
    """Invariant 12: at equal weight and reduction, but for the reference's constant."""
    found = logps(columns())
    same = replace(found, policy_sample=found.policy_chosen, reference_sample=found.reference_chosen)
    policy = same.policy_chosen.requires_grad_()
    terms = [{"kind": "optimism", "weight": 0.1}, {"kind": "nll_chosen", "weight": 0.1, "reduce": "sum"}]
    total = bind_regularisers(terms)(same)
    np.testing.assert_allclose(total.detach().numpy(), -0.1 * same.reference_chosen.numpy())
    assert torch.autograd.grad(total.sum(), policy)[0].abs().max() < 1e-15


def test_slices_carry_what_is_there_and_what_is_not() -> None:
    found = replace(logps(columns(4)), policy_sample=torch.arange(4.0), offset=torch.arange(4.0).double())
    part = found[1:3]
    assert part.policy_sample is not None and part.policy_sample.tolist() == [1.0, 2.0]
    assert part.offset.tolist() == [1.0, 2.0]
    assert (part.reference_sample, part.policy_rationale) == (None, None)
