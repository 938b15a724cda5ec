"""What losses promise: where their minima lie, which way they push, what a soft target and a weight mean."""

import re
from math import log
from typing import Any

import numpy as np
import pytest
import torch

from loop.errors import ConfigError
from loop.learning.losses import LOSSES, Logps, bind, mean_loss, metrics
from tests.learning.data import columns, logps, pair_of


@pytest.mark.parametrize("e", [0.1, 0.25, 0.4])
def test_smoothing_puts_the_minimum_at_the_log_odds(e: float) -> None:
    best = log((1 - e) / e) / 0.1
    at = [LOSSES["sigmoid"](pair_of(g), label_smoothing=e).item() for g in (best - 0.5, best, best + 0.5)]
    assert at[1] == pytest.approx(-e * log(e) - (1 - e) * log(1 - e))  # the entropy of the label
    assert at[0] > at[1] < at[2]


@pytest.mark.parametrize(("p", "name"), [(p, name) for p in (0.2, 0.5, 0.9) for name in ("sigmoid", "hinge", "simpo")])
def test_a_soft_target_is_the_expected_loss_over_the_label(p: float, name: str) -> None:
    found = columns()
    other = {"chosen": "rejected", "rejected": "chosen"}
    swapped = {re.sub("chosen|rejected", lambda side: other[side[0]], name): found[name] for name in found}
    options = {"gamma": 0.0} if name == "simpo" else {}  # gamma favours the side that is called chosen
    won, lost = (bind(name, **options)(logps(side | {"p": np.ones(64)})) for side in (found, swapped))
    soft = bind(name, **options)(logps(found | {"p": np.full(64, p)}))
    np.testing.assert_allclose(soft.numpy(), (p * won + (1 - p) * lost).numpy(), 1e-12)


@pytest.mark.parametrize(("p", "best"), [(1.0, 5.0), (0.75, 2.5), (0.5, 0.0), (0.0, -5.0)])
def test_a_soft_target_moves_the_aim_of_ipo(p: float, best: float) -> None:
    assert LOSSES["ipo"](pair_of(best, p=p)).item() == 0  # (p - 1/2) / 0.1
    assert LOSSES["ipo"](pair_of(best + 3, p=p)).item() == pytest.approx(9)


@pytest.mark.parametrize(
    ("name", "options", "at", "sign"),
    [
        ("sigmoid", {}, 30.0, -1),  # always wants more
        ("sigmoid", {"label_smoothing": 0.25}, 5.0, -1),  # minimum at log(3) / 0.1 = 11
        ("sigmoid", {"label_smoothing": 0.25}, 15.0, 1),
        ("ipo", {}, 4.0, -1),  # minimum at 5
        ("ipo", {}, 6.0, 1),
        ("hinge", {}, 9.0, -1),  # satisfied from 10 on
        ("hinge", {}, 11.0, 0),
        ("simpo", {}, 30.0, -1),
    ],
)
def test_gradient(name: str, options: dict[str, Any], at: float, sign: int) -> None:
    pair = pair_of(at)
    sides = [side.requires_grad_() for side in (pair.policy_chosen, pair.policy_rejected, pair.reference_chosen)]
    value = bind(name, **options)(pair).sum()
    chosen, rejected, reference = (side.item() for side in torch.autograd.grad(value, sides, materialize_grads=True))
    assert np.sign([chosen, rejected]).tolist() == [sign, -sign]
    assert reference == (0.0 if name == "simpo" else -chosen)


def test_weights_multiply_in_the_mean_and_any_split_adds_up() -> None:
    values, weight = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.5, 0.0])
    assert mean_loss(values, weight, 3).item() == pytest.approx(2 / 3)
    halves = mean_loss(values[:1], weight[:1], 3) + mean_loss(values[1:], weight[1:], 3)
    assert halves.item() == pytest.approx(2 / 3)


def test_defaults_of_a_pair() -> None:
    zero, one = torch.zeros(3), torch.ones(3)
    pair = Logps(zero, zero, zero, zero, one, one)
    assert (pair.p.tolist(), pair.margin.tolist(), pair.weight.tolist()) == ([1.0] * 3, [0.0] * 3, [1.0] * 3)


def test_metrics_by_hand() -> None:
    # log-ratios: chosen 2, -1; rejected -1, 3. The second pair ranks -11 over -12 and still loses to its reference.
    made = Logps(
        *(torch.tensor(v) for v in ([-8.0, -11.0], [-9.0, -12.0], [-10.0, -10.0], [-8.0, -15.0], [4, 5], [6, 8]))
    )
    found = {name: value.item() for name, value in metrics(made, torch.tensor([0.25, 0.5]), 0.5).items()}
    assert found == {
        "loss": 0.75,
        "accuracy": 1.0,
        "ranking_accuracy": 2.0,
        "chosen_ratio": 1.0,
        "chosen_reward": 0.5,
        "rejected_reward": 1.0,
        "reward_margin": -0.5,
        "chosen_logp": -19.0,
        "rejected_logp": -21.0,
        "chosen_tokens": 9.0,
        "rejected_tokens": 14.0,
    }


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sigmoid", {"gamma": 1.0}, "loss 'sigmoid' has no option 'gamma'; it takes beta, label_smoothing"),
        ("hinge", {"bet": 1}, "loss 'hinge' has no option 'bet' (did you mean 'beta'?); it takes beta"),
        ("ipo", {"logps": 1}, "loss 'ipo' has no option 'logps'; it takes beta, length_norm"),
        ("dpo", {}, "there is no loss 'dpo'; choose one of sigmoid, ipo, hinge, simpo"),
    ],
)
def test_unknown_names_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        bind(name, **options)
    assert str(refused.value) == message
