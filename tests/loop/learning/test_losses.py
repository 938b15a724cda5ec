"""Every loss against a closed form written apart from it, in numpy at float64 (pitfalls 11 to 14)."""

from collections.abc import Callable
from math import log
from typing import Any

import numpy as np
import pytest
import torch

from sparring.loop.learning.losses import LOSSES, bind
from sparring.loop.learning.losses.scores import log1mexp
from tests.helpers.closed_forms import PAIRS
from tests.helpers.logps import BATCH_DEPENDENT, Columns, columns, extremes, logps, pair_of

CASES = [
    ("sigmoid", {}),
    ("sigmoid", {"beta": 0.5}),
    ("sigmoid", {"beta": 0.02, "label_smoothing": 0.3}),
    ("ipo", {}),
    ("ipo", {"beta": 0.7}),
    ("ipo", {"beta": 0.7, "length_norm": True}),
    ("hinge", {}),
    ("hinge", {"beta": 1.3}),
    ("simpo", {}),
    ("simpo", {"beta": 2.5, "gamma": 0.3}),
    ("simpo", {"beta": 10.0, "gamma": 5.0, "label_smoothing": 0.1}),
    ("cdpo", {}),
    ("cdpo", {"beta": 0.5, "label_smoothing": 0.3}),
    ("robust", {}),
    ("robust", {"beta": 0.5, "label_smoothing": 0.4}),
    ("exo", {}),
    ("exo", {"beta": 0.5, "label_smoothing": 0.2}),
    ("sigmoid_norm", {}),
    ("sigmoid_norm", {"beta": 1.0, "label_smoothing": 0.2}),
    ("length_regularised", {}),
    ("length_regularised", {"beta": 0.5, "alpha": 0.2, "label_smoothing": 0.1}),
    ("dpop", {}),
    ("dpop", {"beta": 0.1, "dpop_lambda": 2.0}),
    ("discopop", {}),
    ("discopop", {"beta": 0.3, "tau": 1.0}),
    *(("rpo_nv", {"distance": distance}) for distance in ("sq", "bwd", "fwd")),
    *(("rpo_nv", {"beta": 0.3, "eta": 2.5, "distance": distance}) for distance in ("sq", "bwd", "fwd")),
    ("rpo_nv", {}),
    ("aot", {}),
    ("aot", {"beta": 0.5, "label_smoothing": 0.2}),
    ("aot_unpaired", {}),
    ("aot_unpaired", {"beta": 0.5, "label_smoothing": 0.2}),
    ("cpo", {}),
    ("cpo", {"beta": 0.5, "alpha": 0.3}),
    ("orpo", {}),
    ("orpo", {"beta": 2.0}),
    ("asft", {}),
    ("asft", {"beta": 2.0}),
    ("kto", {}),
    ("kto", {"beta": 0.5, "desirable_weight": 1.33, "undesirable_weight": 0.7}),
    ("bco", {}),
    ("bco", {"beta": 0.5}),
    ("nca", {}),
    ("nca", {"beta": 0.5}),
    ("sppo", {}),
    ("sppo", {"eta": 10.0}),
    ("sppo_hard", {}),
    ("sppo_hard", {"beta": 0.1}),
    ("apo_zero", {}),
    ("apo_zero", {"beta": 0.5}),
    ("apo_down", {}),
    ("apo_down", {"beta": 0.5}),
]


def test_every_loss_has_a_closed_form_here() -> None:
    assert PAIRS.keys() == LOSSES.keys() == {name for name, _ in CASES}


@pytest.mark.parametrize(("name", "options"), CASES)
def test_value(name: str, options: dict[str, Any]) -> None:
    found = columns()
    np.testing.assert_allclose(bind(name, **options)(logps(found)).numpy(), PAIRS[name](found, **options), 1e-12, 1e-10)
    hard = found | {"p": np.ones(64)}
    np.testing.assert_allclose(bind(name, **options)(logps(hard)).numpy(), PAIRS[name](hard, **options), 1e-12, 1e-10)


def slopes(loss: Callable[[Columns], np.ndarray], at: Columns, side: str) -> np.ndarray:
    """Central differences of the sum of losses in the policy's log-prob of each answer of a side."""
    found = []
    for i in range(len(at[side])):
        step = np.zeros(len(at[side]))
        step[i] = 1e-5
        found.append((loss({**at, side: at[side] + step}) - loss({**at, side: at[side] - step})).sum() / 2e-5)
    return np.array(found)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_gradient(name: str, options: dict[str, Any]) -> None:
    found = columns(12, seed=1)
    made = logps(found)
    sides = [side.requires_grad_() for side in (made.policy_chosen, made.policy_rejected)]
    gradients = torch.autograd.grad(bind(name, **options)(made).sum(), sides)
    for side, gradient in zip(("policy_chosen", "policy_rejected"), gradients, strict=True):
        expected = slopes(lambda c: PAIRS[name](c, **options), found, side)
        np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
        assert np.abs(expected).max() > 1e-4


@pytest.mark.parametrize(("name", "options"), CASES)
def test_float32_is_close_and_finite_far_out(name: str, options: dict[str, Any]) -> None:
    # Whole answers may differ by thousands of nats; exp(-a) written out would overflow at 89.
    for found in (columns() | {"policy_chosen": np.linspace(-9000.0, -1.0, 64)}, extremes()):
        made = logps({k: v.astype(np.float32) for k, v in found.items()})
        sides = [side.requires_grad_() for side in (made.policy_chosen, made.policy_rejected)]
        values = bind(name, **options)(made)
        assert values.dtype == torch.float32
        np.testing.assert_allclose(values.detach().numpy(), PAIRS[name](found, **options), rtol=2e-5, atol=1e-4)
        assert all(torch.isfinite(each).all() for each in torch.autograd.grad(values.sum(), sides))


def test_log1mexp_loses_no_digits_in_float32() -> None:
    x = torch.tensor([-1e4, -50.0, -3.0, -0.7, -0.69, -1e-2, -1e-4, -1e-6])
    exact = np.log(-np.expm1(x.double().numpy()))
    np.testing.assert_allclose(log1mexp(x).numpy(), exact, rtol=3e-7, atol=1e-12)


def test_policy_equal_to_reference() -> None:
    found = columns()
    same = found | {f"policy_{side}": found[f"reference_{side}"] for side in ("chosen", "rejected")}
    start = logps(same | {"p": np.ones(64)})
    for beta in (0.05, 0.1, 2.0):
        assert bind("sigmoid", beta=beta)(start).tolist() == pytest.approx([log(2)] * 64, abs=1e-15)
        assert bind("ipo", beta=beta)(start).tolist() == pytest.approx([1 / (4 * beta**2)] * 64)
        assert bind("hinge", beta=beta)(start).tolist() == [1.0] * 64
    # At logit 0 both labels cost the same, so neither p nor smoothing shows.
    assert bind("sigmoid", label_smoothing=0.2)(logps(same)).tolist() == pytest.approx([log(2)] * 64, abs=1e-15)
    assert start.gap.tolist() == [0.0] * 64
    # SimPO knows no reference: its start depends on the policy.
    assert np.ptp(bind("simpo")(start).numpy()) > 0.1


def test_by_hand() -> None:
    # beta * gap = 0.1 * 20 = 2: log(1 + e^-2) = 0.126928
    assert LOSSES["sigmoid"](pair_of(20)).item() == pytest.approx(0.126928, abs=1e-6)
    # smoothed: 0.9 * 0.126928 + 0.1 * (2 + 0.126928) = 0.326928
    assert LOSSES["sigmoid"](pair_of(20), label_smoothing=0.1).item() == pytest.approx(0.326928, abs=1e-6)
    # (20 - 1 / 0.2)^2 = 225; a token: (20 / 4 - 0 / 2 - 5)^2 = 0
    assert LOSSES["ipo"](pair_of(20)).item() == pytest.approx(225)
    assert LOSSES["ipo"](pair_of(20), length_norm=True).item() == pytest.approx(0)
    # 1 - 0.1 * 4 = 0.6; at 0.1 * 20 = 2 the margin is met
    assert LOSSES["hinge"](pair_of(4)).item() == pytest.approx(0.6)
    assert LOSSES["hinge"](pair_of(20)).item() == 0
    # chosen (4 - 10) / 4 = -1.5 a token, rejected -10 / 2 = -5: 2 * 3.5 - 1 = 6, log(1 + e^-6) = 0.00247569
    assert LOSSES["simpo"](pair_of(4)).item() == pytest.approx(0.00247569, rel=1e-5)


def test_length_norm_is_another_loss() -> None:
    found = logps(columns())
    assert (bind("ipo", length_norm=True)(found) - bind("ipo")(found)).abs().max() > 1


def test_the_name_decides_the_value() -> None:
    # A soft target, since SPPO is its hard form at p = 1, and a baseline, since KTO is APO-zero without one.
    found = logps(columns(8))
    values = [tuple(np.round(bind(name)(found).numpy(), 6)) for name in LOSSES]
    assert len(set(values)) == len(LOSSES) == 24


@pytest.mark.parametrize("name", LOSSES)
def test_a_pair_does_not_see_its_neighbours_but_where_that_is_said(name: str) -> None:
    found = logps(columns())
    alone = torch.allclose(bind(name)(found)[10:13], bind(name)(found[10:13]), rtol=1e-14)
    assert alone == (name not in BATCH_DEPENDENT)
