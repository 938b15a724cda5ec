"""Losses of a prompt's group of answers against closed forms with a loop over groups, in numpy at float64."""

from collections.abc import Callable
from itertools import combinations
from math import log
from typing import Any

import numpy as np
import pytest
import torch

from sparring.loop.errors import DataError
from sparring.loop.learning.losses import GROUP_LOSSES, Groups, bind, bind_group
from tests.helpers.closed_forms import Array, log_s, s
from tests.helpers.logps import Columns, columns, group_columns, groups, logps

ROWS = ("policy", "reference", "tokens", "reward", "weight", "baseline")


def by_group(c: Columns, loss: Callable[..., float]) -> Array:
    """loss(x, reward, weight, answers' columns) of each group; x is the log-ratio."""
    found = []
    for number in range(c["group"].max() + 1):
        of = {name: c[name][c["group"] == number] for name in ROWS}
        found.append(loss(of["policy"] - of["reference"], of["reward"], of["weight"], of))
    return np.array(found)


def softmax(x: Array) -> Array:
    found: Array = np.exp(x - np.logaddexp.reduce(x))
    return found


def rpo_nv_group(c: Columns, beta: float = 0.1, eta: float = 1.0, distance: str = "sq") -> Array:
    def of(x: Array, reward: Array, weight: Array, _: Columns) -> float:
        u = eta * reward - beta * x
        if distance == "sq":
            pairs = [(u[i] - u[j]) ** 2 for i, j in combinations(range(len(u)), 2)]
            return float(weight.mean() * (np.mean(pairs) if pairs else 0.0))
        p, q = softmax(eta * reward), softmax(beta * x)
        p, q = (p, q) if distance == "bwd" else (q, p)
        return float(weight.mean() * (p * np.log(p / q)).sum())

    return by_group(c, of)


def nca_group(c: Columns, beta: float = 0.1, alpha: float = 1.0) -> Array:
    def of(x: Array, reward: Array, weight: Array, _: Columns) -> float:
        w = softmax(reward / alpha)
        return float((weight * (-w * log_s(beta * x) - log_s(-beta * x) / len(x))).sum())

    return by_group(c, of)


def kto_unpaired(
    c: Columns, beta: float = 0.1, desirable_weight: float = 1.0, undesirable_weight: float = 1.0
) -> Array:
    def of(x: Array, label: Array, weight: Array, more: Columns) -> float:
        z = more["baseline"]
        good, bad = desirable_weight * (1 - s(beta * (x - z))), undesirable_weight * (1 - s(beta * (z - x)))
        return float((weight * (label * good + (1 - label) * bad)).mean())

    return by_group(c, of)


def bco_unpaired(c: Columns, beta: float = 0.1) -> Array:
    def of(x: Array, label: Array, weight: Array, more: Columns) -> float:
        a = beta * (x - more["baseline"])
        return float((weight * (-label * log_s(a) - (1 - label) * log_s(-a))).mean())

    return by_group(c, of)


def sft(c: Columns, reduce: str = "mean") -> Array:
    def of(_: Array, __: Array, weight: Array, more: Columns) -> float:
        return float((weight * -more["policy"] / (more["tokens"] if reduce == "mean" else 1)).mean())

    return by_group(c, of)


CLOSED_FORMS: dict[str, Callable[..., Array]] = {
    f.__name__: f for f in (rpo_nv_group, nca_group, kto_unpaired, bco_unpaired, sft)
}
LABELLED = {"kto_unpaired", "bco_unpaired"}
CASES: list[tuple[str, dict[str, Any]]] = [
    *(("rpo_nv_group", {"beta": 0.3, "eta": 2.0, "distance": distance}) for distance in ("sq", "bwd", "fwd")),
    ("rpo_nv_group", {}),
    ("nca_group", {}),
    ("nca_group", {"beta": 0.5, "alpha": 0.3}),
    ("kto_unpaired", {}),
    ("kto_unpaired", {"beta": 0.5, "desirable_weight": 1.33, "undesirable_weight": 0.7}),
    ("bco_unpaired", {}),
    ("bco_unpaired", {"beta": 0.5}),
    ("sft", {}),
    ("sft", {"reduce": "sum"}),
]


def answers(name: str, sizes: tuple[int, ...] = (2, 1, 5, 3)) -> dict[str, Array]:
    found = group_columns(sizes)
    labels = np.resize([1.0, 0.0, 0.0, 1.0, 0.3], len(found["group"]))
    return found | ({"reward": labels} if name in LABELLED else {})


def test_every_group_loss_has_a_closed_form_here() -> None:
    assert CLOSED_FORMS.keys() == GROUP_LOSSES.keys() == {name for name, _ in CASES}


@pytest.mark.parametrize(("name", "options"), CASES)
def test_value_and_gradient(name: str, options: dict[str, Any]) -> None:
    found = answers(name)
    made = groups(found)
    policy = made.policy.requires_grad_()
    values = bind_group(name, **options)(made)
    np.testing.assert_allclose(values.detach().numpy(), CLOSED_FORMS[name](found, **options), rtol=1e-11)
    (gradient,) = torch.autograd.grad(values.sum(), policy)
    for i, slope in enumerate(gradient.tolist()):
        step = np.eye(len(gradient))[i] * 1e-5
        up, down = (CLOSED_FORMS[name](found | {"policy": found["policy"] + d}, **options).sum() for d in (step, -step))
        assert slope == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_float32_is_close_and_finite_far_out(name: str, options: dict[str, Any]) -> None:
    found = answers(name, (4, 4))
    found["policy"] = np.resize([-1.0, -10001.0], 8)
    found["reference"] = np.resize([-10001.0, -1.0, -1.0, -10001.0], 8)
    made = groups({k: v.astype(np.float32) if k != "group" else v for k, v in found.items()})
    policy = made.policy.requires_grad_()
    values = bind_group(name, **options)(made)
    assert values.dtype == torch.float32
    assert torch.isfinite(values).all() and torch.isfinite(torch.autograd.grad(values.sum(), policy)[0]).all()
    if options.get("distance") not in ("bwd", "fwd"):  # the plain form of a KL divides by zero here
        np.testing.assert_allclose(values.detach().numpy(), CLOSED_FORMS[name](found, **options), rtol=2e-5)


@pytest.mark.parametrize("distance", ["sq", "bwd", "fwd"])
def test_groups_of_two_are_pairs(distance: str) -> None:
    # Invariants 3 and 5: for K = 2 the softmax forms are the Bernoulli forms, whichever answer comes first.
    found = columns()
    both = ["chosen", "rejected"]
    made = {name: np.concatenate([found[f"{name}_{side}"] for side in both]) for name in ("policy", "reference")}
    made |= {"tokens": np.ones(128), "weight": np.ones(128), "group": np.tile(np.arange(64), 2)}
    made["reward"] = np.concatenate([found["margin"] / 2, -found["margin"] / 2])
    pairs = bind("rpo_nv", beta=0.3, eta=2.0, distance=distance)(logps(found))
    other = bind_group("rpo_nv_group", beta=0.3, eta=2.0, distance=distance)(groups(made))
    np.testing.assert_allclose(other.numpy(), pairs.numpy(), rtol=1e-9, atol=1e-12)


def test_labelled_and_shared_pairs_are_pairs() -> None:
    found = columns()
    made = {
        name: np.concatenate([found[f"{name}_chosen"], found[f"{name}_rejected"]]) for name in ("policy", "reference")
    }
    made |= {"tokens": np.ones(128), "weight": np.ones(128), "group": np.tile(np.arange(64), 2)}
    made |= {"baseline": np.tile(found["baseline"], 2), "reward": np.concatenate([found["p"], 1 - found["p"]])}
    for name in ("kto", "bco"):  # a pair is the sum of its answers, a group their mean
        pairs, unpaired = bind(name)(logps(found)), bind_group(f"{name}_unpaired")(groups(made))
        np.testing.assert_allclose(2 * unpaired.numpy(), pairs.numpy(), rtol=1e-12)
    made["reward"] = np.concatenate([np.log(found["p"] / (1 - found["p"])), np.zeros(64)])  # shares p and 1 - p
    np.testing.assert_allclose(bind_group("nca_group")(groups(made)).numpy(), bind("nca")(logps(found)).numpy(), 1e-9)


@pytest.mark.parametrize("sizes", [(2,), (4,), (2, 3, 7)])
def test_squared_rpo_on_policy_has_the_gradient_of_rloo(sizes: tuple[int, ...]) -> None:
    """Invariant 4: -(4 beta / K) sum_i A_i grad log P(y_i), A_i = u_i less the mean of the others' u, per prompt."""
    random, beta, eta, arms = np.random.default_rng(3), 0.2, 1.5, 6
    logits = torch.tensor(random.normal(0, 1, (len(sizes), arms)), requires_grad=True)
    policy = torch.log_softmax(logits, -1)
    group = np.repeat(np.arange(len(sizes)), sizes)
    drawn = np.array([random.choice(arms, p=policy[g].detach().exp().numpy()) for g in group])
    reference, reward = random.normal(-2, 1, len(group)), random.normal(0, 1, len(group))
    one = torch.ones(len(group), dtype=torch.float64)
    made = Groups(
        policy[group, drawn], torch.from_numpy(reference), one, torch.from_numpy(reward), one, torch.from_numpy(group)
    )
    loss = bind_group("rpo_nv_group", beta=beta, eta=eta, distance="sq")(made)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)

    expected = np.zeros((len(sizes), arms))
    p = policy.detach().exp().numpy()
    u = eta * reward - beta * (made.policy.detach().numpy() - reference)
    for i, (g, arm) in enumerate(zip(group, drawn, strict=True)):
        others = [u[j] for j in range(len(u)) if group[j] == g and j != i]
        expected[g] -= 4 * beta / sizes[g] * (u[i] - np.mean(others)) * (np.eye(arms)[arm] - p[g])
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-10, atol=1e-12)


def test_backward_rpo_is_info_nca_but_for_the_entropy() -> None:
    found = group_columns((4,)) | {"weight": np.ones(4)}
    target = softmax(2.0 * found["reward"])
    implicit = 0.1 * (found["policy"] - found["reference"])
    info_nca = -(target * np.log(softmax(implicit))).sum()
    entropy = -(target * np.log(target)).sum()
    (value,) = bind_group("rpo_nv_group", eta=2.0, distance="bwd")(groups(found)).tolist()
    assert value == pytest.approx(info_nca - entropy)


def test_by_hand() -> None:
    def three(**more: Any) -> Groups:
        # log-ratios 1, -1, 0 in one group
        made = {"policy": [-2.0, -5.0, -3.0], "reference": [-3.0, -4.0, -3.0], "tokens": [2, 5, 3]}
        made |= {"reward": [1.0, 0.0, 0.0], "weight": [1.0, 1.0, 1.0], "group": [0, 0, 0]} | more
        return Groups(**{name: torch.tensor(value) for name, value in made.items()})

    # u = reward - ratio = 0, 1, 0: squares of differences 1, 0, 1
    assert bind_group("rpo_nv_group", beta=1.0)(three()).item() == pytest.approx(2 / 3)
    # each a token: 1, 1, 1; of whole answers (2 + 5 + 3) / 3
    assert bind_group("sft")(three()).item() == pytest.approx(1)
    assert bind_group("sft", reduce="sum")(three()).item() == pytest.approx(10 / 3)
    assert bind_group("sft")(three(weight=[1.0, 0.0, 0.5])).item() == pytest.approx(0.5)
    # log-ratios at the baseline: log 2 and 1/2 each
    same = three(baseline=[1.0, -1.0, 0.0])
    assert bind_group("bco_unpaired")(same).item() == pytest.approx(log(2))
    assert bind_group("kto_unpaired", undesirable_weight=4.0)(same).item() == pytest.approx((0.5 + 2 + 2) / 3)


def test_a_single_answer_has_nothing_to_be_compared_with() -> None:
    found = group_columns((1, 1))
    for distance in ("sq", "bwd", "fwd"):
        assert bind_group("rpo_nv_group", distance=distance)(groups(found)).tolist() == [0.0, 0.0]


def test_groups_without_answers_and_wrong_labels_are_refused() -> None:
    found = group_columns((2, 2))
    with pytest.raises(DataError, match=r"groups \[1\] have no answers; number groups from 0 to G - 1"):
        groups(found | {"group": found["group"] * 2})
    with pytest.raises(DataError, match=r"a label is -2; expected 1 \(desirable\) or 0"):
        bind_group("kto_unpaired")(groups(found | {"reward": np.array([1.0, 0.0, -2.0, 0.5])}))
    with pytest.raises(DataError, match=r"a label is 1.5; expected 1"):
        bind_group("bco_unpaired")(groups(found | {"reward": np.array([1.0, 1.5, 0.0, 0.5])}))
