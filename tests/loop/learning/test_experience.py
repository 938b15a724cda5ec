"""From a rollout to losses, algorithm by algorithm: each whole, in numpy, written apart from the code."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sparring.loop.errors import ConfigError, StepError
from sparring.loop.learning.experience import Experience, Rollout, experience, policy_share, value_share
from sparring.loop.learning.policy_options import ALGORITHMS, PPO, algorithm
from tests.helpers.rollouts import COMPLETION, GROUP, LENGTHS, N, S, parts, rollout

ROWS = list(range(3))
DRIFT = np.random.default_rng(20).normal(0, 0.2, N)
NUMBERS = {name: getattr(rollout(), name).numpy() for name in ("old", "reference", "sampler", "values", "score")}
STOPPED = rollout().stopped.numpy()
KL = np.array([part.sum() for part in parts(NUMBERS["old"] - NUMBERS["reference"])])  # of answers, k1


def clipped(ratio: np.ndarray, a: np.ndarray, low: float = 0.2) -> np.ndarray:
    return -np.minimum(ratio * a, np.clip(ratio, 1 - low, 1 + low) * a)


def tis(cap: float = 2.0, whole: bool = False) -> np.ndarray:
    z = NUMBERS["old"] - NUMBERS["sampler"]
    if whole:
        z = np.array([part.sum() for part in parts(z)])[COMPLETION]
    return np.minimum(np.exp(z), cap)


def answer_ratios() -> np.ndarray:
    return np.exp([part.sum() for part in parts(DRIFT)])


def ppo() -> float:
    score = np.where(STOPPED, NUMBERS["score"], -10.0)
    advantages = []
    for i, (old, reference, values) in enumerate(
        zip(*(parts(NUMBERS[name]) for name in ("old", "reference", "values")), strict=True)
    ):
        reward = -0.05 * (old - reference)
        reward[-1] += score[i]
        delta = reward + np.append(values[1:], 0) - values
        advantages += [sum(0.95**k * delta[t + k] for k in range(len(delta) - t)) for t in range(len(delta))]
    a = np.array(advantages)
    a = (a - a.mean()) / np.sqrt(a.var() + 1e-8)
    return float((clipped(np.exp(DRIFT), a) * tis()).mean())


def rloo() -> float:
    u = NUMBERS["score"] - 0.05 * KL
    a = np.array([u[i] - np.mean([u[j] for j in range(S) if j != i and GROUP[j] == GROUP[i]]) for i in range(S)])
    weights = np.array([part[0] for part in parts(tis(whole=True))])
    return float((clipped(answer_ratios(), a) * weights).mean())


def reinforce() -> float:
    u = NUMBERS["score"] - 0.05 * KL
    baseline = (1.5 * 10 + u.sum()) / (10 + S)
    weights = np.array([part[0] for part in parts(tis(whole=True))])
    return float((-answer_ratios() * (u - baseline) * weights).mean())


def within(norm: bool) -> np.ndarray:
    group, found = np.array(GROUP), []
    for i in range(S):
        own = NUMBERS["score"][group == group[i]]
        found.append((NUMBERS["score"][i] - own.mean()) / (own.std(ddof=1) + 1e-4 if norm else 1.0))
    return np.array(found)


def grpo() -> float:
    policy = NUMBERS["old"] + DRIFT
    z = policy - NUMBERS["reference"]
    losses = clipped(np.exp(DRIFT), within(norm=True)[COMPLETION]) * tis() + 0.04 * (np.exp(-z) - 1 + z)
    return float(np.mean([part.mean() for part in parts(losses)]))


def dr_grpo() -> float:
    losses = clipped(np.exp(DRIFT), within(norm=False)[COMPLETION]) * tis()
    return float(np.mean([part.sum() / 16 for part in parts(losses)]))


CLOSED_FORMS = {"ppo": ppo, "rloo": rloo, "reinforce": reinforce, "grpo": grpo, "dr_grpo": dr_grpo}
OPTIONS: dict[str, dict[str, Any]] = {"dr_grpo": {"max_tokens": 16}}


def made(name: str, r: Rollout | None = None, **more: Any) -> tuple[Experience, dict[str, float]]:
    return experience(r or rollout(), algorithm(name, **OPTIONS.get(name, {}), **more), earlier=(1.5, 10))


def test_every_algorithm_has_a_closed_form_here() -> None:
    assert CLOSED_FORMS.keys() == ALGORITHMS.keys()


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_loss(name: str) -> None:
    taken, _ = made(name)
    policy = taken.old + torch.from_numpy(DRIFT)
    loss, found = policy_share(policy, taken, algorithm(name, **OPTIONS.get(name, {})), taken.totals(ROWS))
    assert float(loss) == pytest.approx(CLOSED_FORMS[name](), rel=1e-12)
    assert found["policy_loss"] == float(loss)


def test_all_names_are_distinct() -> None:
    assert len({round(closed(), 6) for closed in CLOSED_FORMS.values()}) == len(CLOSED_FORMS)


@pytest.mark.parametrize("name", CLOSED_FORMS)
@pytest.mark.parametrize("cuts", [[[2], [0, 1]], [[1], [2], [0]], [[1, 2, 0]]])
def test_any_split_adds_up(name: str, cuts: list[list[int]]) -> None:
    # Loss, gradient and metrics of a batch do not hang on the micro-batches it is cut into, nor on their order.
    options = algorithm(name, **OPTIONS.get(name, {}))
    whole, _ = made(name)
    totals = whole.totals(ROWS)
    policy = (whole.old + torch.from_numpy(DRIFT)).requires_grad_()
    loss, metrics = policy_share(policy, whole, options, totals)
    loss.backward()
    gradient, sums, policy.grad = policy.grad, dict.fromkeys(metrics, 0.0), None
    for rows in cuts:
        tokens = torch.cat([torch.nonzero(torch.tensor(GROUP)[COMPLETION] == row)[:, 0] for row in rows])
        share, found = policy_share(policy[tokens], whole.take(rows), options, totals)
        share.backward()
        sums = {key: value + found[key] for key, value in sums.items()}
    assert gradient is not None and policy.grad is not None
    np.testing.assert_allclose(policy.grad, gradient, rtol=1e-12, atol=1e-15)
    assert sums == pytest.approx(metrics)


def test_take_lays_out_groups_as_a_batch_does() -> None:
    taken = made("ppo")[0].take([2, 0])
    assert taken.completion.tolist() == np.repeat(range(5), [1, 7, 3, 1, 5]).tolist()
    assert taken.group.tolist() == [2, 2, 0, 0, 0]
    assert torch.equal(taken.old, torch.cat([rollout().old[15:], rollout().old[:9]]))
    assert taken.returns is not None and len(taken.returns) == 17
    totals = made("ppo")[0].totals([2, 0])
    assert (totals.answers, totals.tokens) == (5, 17)


@pytest.mark.parametrize("name", ["rloo", "reinforce"])
def test_on_policy_gradient_of_an_answer_is_its_advantage(name: str) -> None:
    taken, _ = made(name, tis_cap=None)
    policy = taken.old.clone().requires_grad_()
    policy_share(policy, taken, algorithm(name), taken.totals(ROWS))[0].backward()
    assert policy.grad is not None
    np.testing.assert_allclose(policy.grad, -taken.advantages / S, rtol=1e-12)


def test_value_share() -> None:
    taken, _ = made("ppo")
    values = torch.from_numpy(NUMBERS["values"] + DRIFT * 2).requires_grad_()
    assert taken.returns is not None
    near = NUMBERS["values"] + np.clip(DRIFT * 2, -0.2, 0.2)
    plain, far = (values.detach().numpy() - taken.returns.numpy()) ** 2, (near - taken.returns.numpy()) ** 2
    options = algorithm("ppo")
    assert isinstance(options, PPO)
    loss, found = value_share(values, taken, options, taken.totals(ROWS))
    assert found["value_loss"] == pytest.approx(np.maximum(plain, far).mean() / 2)
    assert loss.item() == pytest.approx(0.1 * found["value_loss"])
    assert found["value_clip_share"] == pytest.approx((far > plain).mean()) and (far > plain).any()
    with pytest.raises(ConfigError, match="no values"):
        value_share(values, made("rloo")[0].take([0]), options, taken.totals([0]))


def test_returns_are_not_whitened() -> None:
    white, plain = made("ppo")[0], made("ppo", whiten=False)[0]
    assert white.returns is not None and plain.returns is not None
    assert torch.equal(white.returns, plain.returns) and not torch.equal(white.advantages, plain.advantages)
    np.testing.assert_allclose(plain.returns - plain.advantages, NUMBERS["values"], atol=1e-12)


# Metrics of the rollout


def test_metrics_of_a_rollout() -> None:
    found = made("reinforce")[1]
    z = NUMBERS["sampler"] - NUMBERS["old"]
    u = NUMBERS["score"] - 0.05 * KL
    assert found == pytest.approx(
        {
            "score": NUMBERS["score"].mean(),
            "score_std": NUMBERS["score"].std(),
            "tokens": 23 / 7,
            "cut_off": 2 / 7,
            "rollout_kl": KL.mean(),
            "mismatch_abs": np.abs(z).mean(),
            "mismatch_kl": (np.exp(-z) - 1 + z).mean(),
            "mismatch_capped": (np.exp(-z) > 2).mean(),
            "baseline": (15 + u.sum()) / 17,
            "baseline_count": 17,
        }
    )


def test_metrics_of_a_critic() -> None:
    taken, found = made("ppo")
    assert taken.returns is not None
    returns = taken.returns.numpy()
    assert found["score"] == pytest.approx(np.where(STOPPED, NUMBERS["score"], -10).mean())  # with the EOS rule
    assert found["explained_variance"] == pytest.approx(1 - (returns - NUMBERS["values"]).var() / returns.var())


def test_groups_without_a_signal_are_counted() -> None:
    r = replace(rollout(), score=torch.tensor([1.0, 1.0, 1.0, 0.5, 0.25, 2.0, 2.0], dtype=torch.float64))
    for name in ("grpo", "dr_grpo", "rloo"):
        taken, found = made(name, r, kl_coef=0.0)
        assert found["zero_signal"] == pytest.approx(2 / 3)
        assert torch.equal(taken.advantages == 0, torch.tensor(GROUP)[COMPLETION] != 1)
    assert "zero_signal" not in made("ppo", r)[1]


# What is missing


def test_a_kl_needs_a_reference() -> None:
    r = replace(rollout(), reference=None)
    for name in ("ppo", "rloo", "grpo"):
        with pytest.raises(ConfigError, match="there is no reference; set a reference, or kl_coef 0"):
            made(name, r)
        made(name, r, kl_coef=0.0)


def test_ppo_needs_values() -> None:
    with pytest.raises(ConfigError, match="no values"):
        made("ppo", replace(rollout(), values=None))


def test_rloo_refuses_a_single_answer() -> None:
    with pytest.raises(StepError, match="single answer"):
        made("rloo", replace(rollout(), group=torch.tensor([0, 0, 0, 1, 1, 2, 3])))


def test_without_the_samplers_log_probs_nothing_is_weighted() -> None:
    taken, found = made("ppo", replace(rollout(), sampler=None))
    assert taken.weights is None and "mismatch_abs" not in found
    taken, found = made("ppo", tis_cap=None)
    assert taken.weights is None and found["mismatch_abs"] > 0.1  # measured, all the same


def test_kl_in_the_loss_is_not_in_the_reward() -> None:
    in_loss, nowhere = (made("rloo", **more)[0] for more in ({"kl_in": "loss"}, {"kl_coef": 0.0}))
    assert torch.equal(in_loss.advantages, nowhere.advantages)
    ppo_loss, ppo_nowhere = (made("ppo", **more)[0] for more in ({"kl_in": "loss"}, {"kl_coef": 0.0}))
    assert torch.equal(ppo_loss.advantages, ppo_nowhere.advantages)
    assert not torch.equal(made("ppo")[0].advantages, ppo_nowhere.advantages)


def test_lengths_are_those_of_the_rollout() -> None:
    assert torch.bincount(rollout().completion).tolist() == list(LENGTHS)
