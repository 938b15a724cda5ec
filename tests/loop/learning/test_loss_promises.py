"""What losses promise: where their minima lie, which way they push, what a soft target and a weight mean."""

import re
from dataclasses import replace
from math import log
from typing import Any

import numpy as np
import pytest
import torch

from sparring.loop.learning.losses import LOSSES, Logps, bind, mean_loss, metrics
from tests.helpers.logps import BATCH_DEPENDENT, REFERENCE_FREE, columns, logps, pair_of


@pytest.mark.parametrize("e", [0.1, 0.25, 0.4])
def test_smoothing_puts_the_minimum_at_the_log_odds(e: float) -> None:
    best = log((1 - e) / e) / 0.1
    at = [LOSSES["sigmoid"](pair_of(g), label_smoothing=e).item() for g in (best - 0.5, best, best + 0.5)]
    assert at[1] == pytest.approx(-e * log(e) - (1 - e) * log(1 - e))  # the entropy of the label
    assert at[0] > at[1] < at[2]


# What a soft target means elsewhere: exo, ipo and sppo aim at it; the likelihood of cpo, orpo and asft stays with
# chosen; sppo_hard and rpo_nv do not look at it.
OVER_LABELS = sorted(
    LOSSES.keys() - BATCH_DEPENDENT - {"exo", "ipo", "sppo", "sppo_hard", "rpo_nv", "cpo", "orpo", "asft"}
)


@pytest.mark.parametrize(("p", "name"), [(p, name) for p in (0.2, 0.5, 0.9) for name in OVER_LABELS])
def test_a_soft_target_is_the_expected_loss_over_the_label(p: float, name: str) -> None:
    found = columns()
    other = {"chosen": "rejected", "rejected": "chosen"}
    swapped = {re.sub("chosen|rejected", lambda side: other[side[0]], name): found[name] for name in found}
    options: dict[str, Any] = {"gamma": 0.0} if name == "simpo" else {}  # gamma favours the side that is called chosen
    won, lost = (bind(name, **options)(logps(side | {"p": np.ones(64)})) for side in (found, swapped))
    soft = bind(name, **options)(logps(found | {"p": np.full(64, p)}))
    np.testing.assert_allclose(soft.numpy(), (p * won + (1 - p) * lost).numpy(), 1e-9, 1e-12)


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
        *((name, {}, 3.0, -1) for name in ("cdpo", "robust", "exo", "discopop", "sigmoid_norm", "length_regularised")),
        ("cdpo", {"label_smoothing": 0.25}, 15.0, 1),
        ("robust", {"label_smoothing": 0.25}, 90.0, -1),  # it never has enough
        ("exo", {"label_smoothing": 0.25}, 15.0, 1),
        ("length_regularised", {"alpha": 5.0}, 3.0, -1),
        ("aot", {}, 3.0, -1),
        ("aot_unpaired", {}, 3.0, -1),
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
    assert (pair.baseline.tolist(), pair.offset.tolist(), pair.policy_sample) == ([0.0] * 3, [0.0] * 3, None)


@pytest.mark.parametrize("name", ["kto", "bco", "nca", "apo_zero", "sppo", "sppo_hard"])
def test_losses_of_single_answers_push_each_by_itself(name: str) -> None:
    pair = pair_of(0.0)
    sides = [side.requires_grad_() for side in (pair.policy_chosen, pair.policy_rejected)]
    chosen, rejected = torch.autograd.grad(bind(name)(pair).sum(), sides)
    assert chosen.item() < 0 < rejected.item()
    other = pair_of(0.0, policy_rejected=-14.0)
    again = other.policy_chosen.requires_grad_()
    assert torch.autograd.grad(bind(name)(other).sum(), again)[0].item() == chosen.item()


def test_apo_down_lowers_both_and_the_rejected_more() -> None:
    pair = pair_of(0.0)
    sides = [side.requires_grad_() for side in (pair.policy_chosen, pair.policy_rejected)]
    chosen, rejected = torch.autograd.grad(bind("apo_down")(pair).sum(), sides)
    assert (chosen.item(), rejected.item()) == pytest.approx((0.0, 0.025))  # 0.1 (1/4 - 1/4) and 0.1 / 4
    lower = pair_of(0.0, policy_chosen=-7.0, policy_rejected=-17.0)  # once they are apart, chosen falls too
    side = lower.policy_chosen.requires_grad_()
    assert torch.autograd.grad(bind("apo_down")(lower).sum(), side)[0].item() > 0


def test_a_baseline_moves_what_counts_as_an_improvement() -> None:
    for name in ("kto", "bco"):
        shifted = pair_of(0.0, policy_chosen=-7.0, policy_rejected=-5.0, baseline=3.0)  # log-ratios 3 and 5
        plain = pair_of(0.0, policy_rejected=-8.0)  # 0 and 2
        assert bind(name)(shifted).item() == pytest.approx(bind(name)(plain).item())
    moving = torch.tensor([3.0], requires_grad=True)
    found = replace(pair_of(1.0), baseline=moving)
    assert not bind("kto")(found).requires_grad  # a baseline is data


def test_kto_without_a_baseline_is_apo_zero() -> None:
    found = logps(columns() | {"baseline": np.zeros(64)})
    np.testing.assert_allclose(bind("kto")(found).numpy(), bind("apo_zero")(found).numpy(), rtol=1e-12)


def test_dpop_punishes_a_chosen_answer_that_grew_less_likely() -> None:
    better, worse = pair_of(2.0), pair_of(0.0, policy_chosen=-11.0, policy_rejected=-13.0)  # one gap; 2 up, 1 down
    assert bind("dpop")(better).item() == pytest.approx(bind("sigmoid", beta=0.3)(worse).item())
    assert bind("dpop")(worse).item() == pytest.approx(log(1 + np.exp(-0.3 * (2 - 50))))


def test_where_policy_is_reference_the_losses_know_no_pair() -> None:
    """Invariant 11: log 2 for DPO and what stands on it; a reference-free loss starts where the policy is."""
    found = columns() | {"p": np.ones(64), "baseline": np.zeros(64), "margin": np.zeros(64)}
    same = found | {f"policy_{side}": found[f"reference_{side}"] for side in ("chosen", "rejected")}
    at = {name: bind(name)(logps(same)).numpy() for name in LOSSES if name != "length_regularised"}
    starts = {"sigmoid": log(2), "cdpo": log(2), "robust": log(2), "sigmoid_norm": log(2), "dpop": log(2)}
    starts |= {"aot": log(2), "aot_unpaired": log(2), "bco": 2 * log(2), "nca": 2 * log(2), "kto": 1.0, "apo_zero": 1.0}
    starts |= {"apo_down": 1.0, "rpo_nv": 0.0, "ipo": 25.0, "hinge": 1.0, "sppo": 5e5, "sppo_hard": 5e5}
    starts |= {"discopop": (log(2) + 1) / 2, "exo": -log(2) - (log(0.999) + log(0.001)) / 2}
    assert at.keys() == starts.keys() | (REFERENCE_FREE & LOSSES.keys())
    for name, start in starts.items():
        np.testing.assert_allclose(at[name], start, rtol=1e-9, atol=1e-12)
    for name in REFERENCE_FREE & LOSSES.keys():
        assert np.ptp(at[name]) > 0.1
        moved = logps(same | {"reference_chosen": found["reference_chosen"] - 5})
        assert np.array_equal(bind(name)(moved).numpy(), at[name])


def rpo(distance: str, a: np.ndarray, b: float, **options: Any) -> np.ndarray:
    """rpo_nv at logits a, for a target b."""
    zero = np.zeros(len(a))
    made = dict.fromkeys(("policy_rejected", "reference_chosen", "reference_rejected"), zero) | {"policy_chosen": a}
    made |= {"chosen_tokens": zero + 1, "rejected_tokens": zero + 1, "margin": zero + b}
    values = bind("rpo_nv", beta=1, eta=1, distance=distance, **options)(logps(made))
    found: np.ndarray = values.numpy()
    return found


A = np.linspace(-30, 30, 61)


def test_dpo_cdpo_and_ipo_come_out_of_rpo() -> None:
    """Invariant 1: bwd with a far target is DPO, at log((1 - e) / e) cDPO but for the entropy; sq at 1/2 is IPO."""
    found = columns() | {"p": np.ones(64)}
    far = logps(found | {"margin": np.full(64, 2000.0)})
    np.testing.assert_allclose(bind("rpo_nv", beta=0.3)(far).numpy(), bind("sigmoid", beta=0.3)(far).numpy(), 1e-12)
    for e in (0.05, 0.3):
        aim = logps(found | {"margin": np.full(64, log((1 - e) / e) / 2)})
        entropy = -e * log(e) - (1 - e) * log(1 - e)
        cdpo = bind("cdpo", beta=0.3, label_smoothing=e)(aim).numpy()
        np.testing.assert_allclose(bind("rpo_nv", beta=0.3, eta=2)(aim).numpy(), cdpo - entropy, 1e-9, 1e-12)
    half = logps(found | {"margin": np.full(64, 0.5)})
    squared = bind("rpo_nv", beta=0.3, distance="sq")(half) / 0.3**2
    np.testing.assert_allclose(squared.numpy(), bind("ipo", beta=0.3)(half).numpy(), 1e-12)


@pytest.mark.parametrize("b", [-3.0, 0.0, 0.7, 20.0])
def test_slopes_of_the_distances(b: float) -> None:
    """Invariant 2: in a, bwd s(a) - s(b), fwd s(a) s(-a) (a - b), sq 2 (a - b)."""
    s = 1 / (1 + np.exp(-A))
    slopes = {"bwd": s - 1 / (1 + np.exp(-b)), "fwd": s * (1 - s) * (A - b), "sq": 2 * (A - b)}
    for distance, slope in slopes.items():
        measured = (rpo(distance, A + 1e-5, b) - rpo(distance, A - 1e-5, b)) / 2e-5
        np.testing.assert_allclose(measured, slope, rtol=1e-6, atol=1e-8)
        assert rpo(distance, np.array([b]), b)[0] == pytest.approx(0, abs=1e-12)
        assert (rpo(distance, A, b) > -1e-12).all()


def test_distances_do_not_care_which_answer_comes_first() -> None:
    """Invariant 3."""
    for distance in ("sq", "bwd", "fwd"):
        np.testing.assert_allclose(rpo(distance, A, 1.5), rpo(distance, -A, -1.5), 1e-9, 1e-12)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.7, 0.95])
def test_soft_dpo_aims_at_the_idealised_policy(p: float) -> None:
    """Invariant 9: the minimum over the gap lies at (1 / beta) log(p / (1 - p)), as arXiv:2405.19534 says."""
    pair = pair_of(log(p / (1 - p)) / 0.1, p=p)
    policy = pair.policy_chosen.requires_grad_()
    assert torch.autograd.grad(bind("sigmoid")(pair).sum(), policy)[0].item() == pytest.approx(0, abs=1e-15)


def test_sppo_aims_at_the_judges_probability() -> None:
    """Pitfall 21: eta (P - 1/2) of each answer; the hard form is P in {0, 1}, and P = 1/2 asks for no change."""
    even = pair_of(0.0, p=0.5)
    assert bind("sppo")(even).item() == 0
    won = pair_of(0.0, policy_chosen=-7.5, policy_rejected=-12.5, p=0.75)  # 2.5 and -2.5
    assert bind("sppo", eta=10)(won).item() == 0
    hard = logps(columns() | {"p": np.ones(64)})
    np.testing.assert_allclose(bind("sppo", eta=20)(hard).numpy(), bind("sppo_hard", beta=0.05)(hard).numpy(), 1e-12)


def test_asft_is_two_likelihoods() -> None:
    """Invariant 6: -(1 + beta) log P(chosen) - beta log(1 - P(rejected)), P the geometric mean over tokens."""
    pair = pair_of(2.0)  # -8 of 4 tokens, -10 of 2
    assert bind("asft", beta=0.3)(pair).item() == pytest.approx(1.3 * 2 - 0.3 * log(1 - np.exp(-5)))


def test_orpo_by_hand() -> None:
    odds = log(np.exp(-2) / (1 - np.exp(-2))) - log(np.exp(-5) / (1 - np.exp(-5)))
    assert bind("orpo", beta=0.3)(pair_of(2.0)).item() == pytest.approx(2 + 0.3 * log(1 + np.exp(-odds)))


def test_aot_compares_ranks_and_not_pairs() -> None:
    zero, one = torch.zeros(3), torch.ones(3)
    found = Logps(torch.tensor([3.0, 1.0, 2.0]), zero, torch.tensor([7.0, 9.0, 8.0]), zero, one, one)
    assert bind("aot", beta=1.0)(found).tolist() == pytest.approx([log(1 + np.exp(6))] * 3)  # 3 - 9, 1 - 7, 2 - 8
    ratios = Logps(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([0.0, 5.0, 1.0]), zero, zero, one, one)
    expected = [log(1 + np.exp(-d)) for d in (3 - 5, 1 - 0, 2 - 1)]
    assert bind("aot_unpaired", beta=1.0)(ratios).tolist() == pytest.approx(expected)


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
        "normalised_ranking_accuracy": 0.0,  # -2 a token against -1.5, -2.2 against -1.5
        "idealised_ranking_accuracy": 2.0,  # hard labels can always be fitted
        "idealised_gap": 0.0,
        "chosen_ratio": 1.0,
        "rejected_ratio": 2.0,
        "chosen_reward": 0.5,
        "rejected_reward": 1.0,
        "reward_margin": -0.5,
        "chosen_logp": -19.0,
        "rejected_logp": -21.0,
        "chosen_tokens": 9.0,
        "rejected_tokens": 14.0,
        "length_gap": -5.0,
    }


def test_a_tie_is_not_ranked_rightly() -> None:
    even = pair_of(0.0, rejected_tokens=4)
    found = metrics(even, torch.zeros(1), 0.1)
    assert [found[name].item() for name in ("accuracy", "ranking_accuracy", "normalised_ranking_accuracy")] == [0] * 3
    assert pair_of(0.0, policy_chosen=-7.0, policy_rejected=-8.0).gap.item() == 1  # log-ratios 3 and 2


def test_idealised_ranking_by_hand() -> None:
    def ideal(p: float, beta: float = 0.5) -> float:
        pair = pair_of(
            -9.0, reference_chosen=-14.0, reference_rejected=-10.0, p=p
        )  # the reference prefers rejected by 4
        found = metrics(pair, torch.zeros(1), beta)
        assert found["idealised_gap"].item() == found["idealised_ranking_accuracy"].item()  # the policy ranks wrongly
        return found["idealised_ranking_accuracy"].item()

    # Right once log(p / (1 - p)) >= 4 * 0.5, at p = 0.8808.
    assert [ideal(p) for p in (1.0, 0.9, 0.87, 0.5, 0.0)] == [1, 1, 0, 0, 0]
    assert [ideal(0.87, beta) for beta in (0.1, 0.5)] == [1, 0]  # a looser tie to the reference
    assert metrics(pair_of(1.0, p=0.5), torch.zeros(1), 0.1)["idealised_ranking_accuracy"].item() == 1  # it is even
