"""Every loss against a closed form written apart from it, in numpy at float64 (pitfalls 11 to 14)."""

from collections.abc import Callable
from math import log
from typing import Any

import numpy as np
import pytest
import torch

from loop.learning.losses import LOSSES, bind
from tests.learning.data import Columns, columns, logps, pair_of


def gap(c: Columns, per_token: bool = False) -> np.ndarray:
    m, n = (c["chosen_tokens"], c["rejected_tokens"]) if per_token else (1, 1)
    chosen = (c["policy_chosen"] - c["reference_chosen"]) / m
    found: np.ndarray = chosen - (c["policy_rejected"] - c["reference_rejected"]) / n
    return found


def cross_entropy(a: np.ndarray, p: np.ndarray, e: float) -> np.ndarray:
    """-q log s(a) - (1 - q) log(1 - s(a)), p turned round with chance e; log s(a) = -log(1 + e^-a)."""
    q = p - 2 * p * e + e
    found: np.ndarray = q * np.logaddexp(0, -a) + (1 - q) * np.logaddexp(0, a)
    return found


def sigmoid(c: Columns, beta: float = 0.1, label_smoothing: float = 0.0) -> np.ndarray:
    return cross_entropy(beta * gap(c), c["p"], label_smoothing)


def ipo(c: Columns, beta: float = 0.1, length_norm: bool = False) -> np.ndarray:
    return np.square(gap(c, length_norm) - (2 * c["p"] - 1) / (2 * beta))


def hinge(c: Columns, beta: float = 0.1) -> np.ndarray:
    a = beta * gap(c)
    found: np.ndarray = c["p"] * np.maximum(0, 1 - a) + (1 - c["p"]) * np.maximum(0, 1 + a)
    return found


def simpo(c: Columns, beta: float = 2.0, gamma: float = 1.0, label_smoothing: float = 0.0) -> np.ndarray:
    chosen, rejected = (c[f"policy_{side}"] / c[f"{side}_tokens"] for side in ("chosen", "rejected"))
    return cross_entropy(beta * (chosen - rejected - gamma / beta), c["p"], label_smoothing)


CLOSED_FORMS: dict[str, Callable[..., np.ndarray]] = {"sigmoid": sigmoid, "ipo": ipo, "hinge": hinge, "simpo": simpo}
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
]


def test_every_loss_has_a_closed_form_here() -> None:
    assert CLOSED_FORMS.keys() == LOSSES.keys() == {name for name, _ in CASES}


@pytest.mark.parametrize(("name", "options"), CASES)
def test_value(name: str, options: dict[str, Any]) -> None:
    found = columns()
    np.testing.assert_allclose(bind(name, **options)(logps(found)).numpy(), CLOSED_FORMS[name](found, **options), 1e-12)
    hard = found | {"p": np.ones(64)}
    np.testing.assert_allclose(bind(name, **options)(logps(hard)).numpy(), CLOSED_FORMS[name](hard, **options), 1e-12)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_float32_is_close_and_finite_far_out(name: str, options: dict[str, Any]) -> None:
    # Whole answers may differ by hundreds of nats; exp(-a) written out would overflow at 89.
    found = columns() | {"policy_chosen": np.linspace(-9000.0, -1.0, 64)}
    values = bind(name, **options)(logps({k: v.astype(np.float32) for k, v in found.items()})).numpy()
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, CLOSED_FORMS[name](found, **options), rtol=2e-5, atol=2e-5)


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
    found = logps(columns(8) | {"p": np.ones(8)})
    values = [tuple(np.round(bind(name)(found).numpy(), 6)) for name in LOSSES]
    assert len(set(values)) == len(LOSSES) >= 4


def test_a_pair_does_not_see_its_neighbours() -> None:
    found = logps(columns())
    for name in LOSSES:
        assert torch.equal(bind(name)(found)[10:13], bind(name)(found[10:13]))
