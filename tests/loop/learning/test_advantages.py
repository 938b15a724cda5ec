"""Every estimator against a closed form written apart from it, in numpy at float64 (pitfalls 51, 52, 54, 56)."""

import numpy as np
import pytest
import torch

from sparring.loop.errors import ConfigError, StepError
from sparring.loop.learning.advantages import (
    gae,
    group_mean,
    group_norm,
    kl_estimate,
    missing_eos,
    moving_average,
    rloo,
    token_rewards,
    whiten,
    zero_signal,
)
from tests.helpers.rollouts import COMPLETION, GROUP, LENGTHS, N, S, parts, rollout

KINDS = ("k1", "k2", "k3")


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(found: torch.Tensor, expected: np.ndarray | list[float]) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-12, atol=1e-13)


# KL


def test_kl_estimators_by_hand() -> None:
    # The policy thinks the token twice as likely as the reference does: z = log 2.
    policy, reference = double(np.log(0.5)), double(np.log(0.25))
    close(kl_estimate(policy, reference, "k1"), [np.log(2)])
    close(kl_estimate(policy, reference, "k2"), [np.log(2) ** 2 / 2])
    close(kl_estimate(policy, reference, "k3"), [0.5 - 1 + np.log(2)])


@pytest.mark.parametrize("kind", KINDS)
def test_kl_of_a_policy_that_is_its_reference_is_zero(kind: str) -> None:
    same = rollout().old.float()
    assert torch.equal(kl_estimate(same, same, kind), torch.zeros(N))


def softmax(logits: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.exp(logits - logits.max())
    return found / found.sum()


P, Q = softmax(np.array([0.3, -1.0, 1.2, 0.1])), softmax(np.array([-0.4, 0.7, 0.5, -1.1]))


def test_expectations_over_the_policy() -> None:
    kl = (P * np.log(P / Q)).sum()
    found = {
        kind: (P * kl_estimate(torch.from_numpy(np.log(P)), torch.from_numpy(np.log(Q)), kind).numpy()).sum()
        for kind in KINDS
    }
    assert found["k1"] == pytest.approx(kl) == found["k3"]
    assert found["k2"] != pytest.approx(kl, rel=1e-3)


def loss_gradient(kind: str) -> np.ndarray:
    """Gradient of the expected estimate as a loss: samples are of the policy, and no gradient goes through sampling."""
    logits = torch.from_numpy(np.log(P)).requires_grad_()
    logp = logits.log_softmax(0)
    (torch.from_numpy(P) * kl_estimate(logp, torch.from_numpy(np.log(Q)), kind)).sum().backward()
    assert logits.grad is not None
    return logits.grad.numpy()


def test_only_k2_as_a_loss_has_the_gradient_of_the_reverse_kl() -> None:
    z = np.log(P / Q)
    reverse = P * (z - (P * z).sum())  # d KL(p || q) / d logits
    np.testing.assert_allclose(loss_gradient("k2"), reverse, rtol=1e-12)
    np.testing.assert_allclose(loss_gradient("k1"), 0, atol=1e-15)
    np.testing.assert_allclose(loss_gradient("k3"), P - Q, rtol=1e-12)  # that of KL(q || p)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("z", [-3000.0, -90.0, 90.0, 3000.0])
def test_kl_is_finite_far_out(kind: str, z: float) -> None:
    policy = torch.tensor([z - 1.0], requires_grad=True)
    value = kl_estimate(policy, torch.tensor([-1.0]), kind)
    value.sum().backward()
    assert policy.grad is not None and torch.isfinite(value).all() and torch.isfinite(policy.grad).all()


def test_an_unknown_kl_is_refused() -> None:
    with pytest.raises(ConfigError, match="no KL estimator 'k4'; choose one of k1, k2, k3"):
        kl_estimate(double(0), double(0), "k4")  # type: ignore[arg-type]


# Rewards


def test_token_rewards_by_hand() -> None:
    # Answers of two tokens and of one; the score is on the last token of each, that of the second being 0 and a score.
    old, reference = double(-1.0, -2.0, -0.5), double(-1.5, -1.0, -0.5)
    found = token_rewards(double(3.0, 0.0), old, reference, torch.tensor([0, 0, 1]), kl_coef=0.1)
    close(found, [-0.05, 0.1 + 3.0, 0.0])


@pytest.mark.parametrize("kind", KINDS)
def test_token_rewards(kind: str) -> None:
    r = rollout()
    assert r.reference is not None
    z = (r.old - r.reference).numpy()
    kl = {"k1": z, "k2": z**2 / 2, "k3": np.exp(-z) - 1 + z}[kind]
    expected = -0.3 * kl
    expected[np.cumsum(LENGTHS) - 1] += r.score.numpy()
    close(token_rewards(r.score, r.old, r.reference, r.completion, kl_coef=0.3, kl_estimator=kind), expected)


def test_missing_eos() -> None:
    score, stopped = double(2.0, -20.0, 0.5), torch.tensor([True, False, False])
    close(missing_eos(score, stopped, replacement=-10.0), [2.0, -10.0, -10.0])
    close(missing_eos(score, stopped, penalty=1.0), [2.0, -21.0, -0.5])
    close(missing_eos(score, stopped, replacement=0.0), [2.0, 0.0, 0.0])
    assert torch.equal(missing_eos(score, stopped), score)


# Advantages


def test_gae_by_hand() -> None:
    # gamma 1/2, lambda 1/2: deltas are 0 + 2 / 2 - 1 = 0, 1 + 3 / 2 - 2 = 1/2, 0 + 4 / 2 - 3 = -1, 2 - 4 = -2, and
    # advantages go back from -2: -1 - 2 / 4 = -1.5, 1/2 - 1.5 / 4 = 0.125, 0 + 0.125 / 4 = 0.03125.
    advantages, returns = gae(
        double(0, 1, 0, 2), double(1, 2, 3, 4), torch.zeros(4, dtype=torch.long), gamma=0.5, lam=0.5
    )
    close(advantages, [0.03125, 0.125, -1.5, -2.0])
    close(returns, [1.03125, 2.125, 1.5, 2.0])


def test_gae_limits() -> None:
    rewards, values, one = double(1, 2, 3, 4), double(5, 6, 7, 8), torch.zeros(4, dtype=torch.long)
    close(gae(rewards, values, one, gamma=1.0, lam=1.0)[1], [10, 9, 7, 4])  # the return is what is still to come
    close(gae(rewards, values, one, gamma=1.0, lam=0.0)[0], [2, 3, 4, -4])  # one step ahead: R + V' - V
    close(gae(rewards, values, one, gamma=0.0, lam=0.95)[0], [-4, -4, -4, -4])  # R - V


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.7), (1.0, 0.0), (0.99, 1.0)])
def test_gae_is_the_discounted_sum_of_deltas(gamma: float, lam: float) -> None:
    r = rollout()
    assert r.values is not None
    rewards = np.random.default_rng(1).normal(0, 1, N)
    advantages, returns = gae(torch.from_numpy(rewards), r.values, r.completion, gamma=gamma, lam=lam)
    expected = []
    for reward, value in zip(parts(rewards), parts(r.values.numpy()), strict=True):
        delta = reward + gamma * np.append(value[1:], 0.0) - value
        n = len(delta)
        expected += [sum((gamma * lam) ** k * delta[t + k] for k in range(n - t)) for t in range(n)]
    close(advantages, expected)
    close(returns, np.array(expected) + r.values.numpy())


def test_answers_do_not_see_each_other() -> None:
    # Padding invariance: an answer alone is as in a batch with longer ones.
    r = rollout()
    assert r.values is not None and r.reference is not None
    whole = gae(token_rewards(r.score, r.old, r.reference, r.completion), r.values, r.completion)
    for i in range(S):
        own, alone = r.completion == i, torch.zeros(LENGTHS[i], dtype=torch.long)
        rewards = token_rewards(r.score[[i]], r.old[own], r.reference[own], alone)
        for together, apart in zip(whole, gae(rewards, r.values[own], alone), strict=True):
            assert torch.equal(together[own], apart)


def test_whiten() -> None:
    x = np.random.default_rng(2).normal(3, 5, N)
    expected = (x - x.mean()) / np.sqrt(x.var() + 1e-8)
    close(whiten(torch.from_numpy(x)), expected)
    close(whiten(torch.from_numpy(x), shift_mean=False), expected + x.mean())
    close(whiten(double(4.0, 4.0)), [0.0, 0.0])
    close(whiten(double(4.0)), [0.0])


# Baselines


def test_rloo_by_hand() -> None:
    found = rloo(double(1, 2, 6, 5, 3), torch.tensor([0, 0, 0, 1, 1]))
    close(found, [1 - 4, 2 - 3.5, 6 - 1.5, 2, -2])


def test_baselines() -> None:
    u, group = rollout().score, np.array(GROUP)
    values = u.numpy()
    leave_one_out, mean, norm = [], [], []
    for i in range(S):
        others = [values[j] for j in range(S) if group[j] == group[i] and j != i]
        own = values[group == group[i]]
        leave_one_out.append(values[i] - np.mean(others))
        mean.append(values[i] - own.mean())
        norm.append((values[i] - own.mean()) / (own.std(ddof=1) + 1e-4))
    index = torch.from_numpy(group)
    close(rloo(u, index), leave_one_out)
    close(group_mean(u, index), mean)
    close(group_norm(u, index), norm)
    sizes = np.bincount(group)[group]
    close(group_mean(u, index), (sizes - 1) / sizes * np.array(leave_one_out))  # E.6: A of the mean is (K - 1) / K of A


def test_groups_may_come_in_any_order() -> None:
    u, group, order = rollout().score, torch.tensor(GROUP), torch.tensor([6, 2, 4, 0, 5, 1, 3])
    for estimator in (rloo, group_mean, group_norm):
        close(estimator(u[order], group[order]), estimator(u, group)[order].numpy())


@pytest.mark.parametrize("estimator", [rloo, group_mean, group_norm])
@pytest.mark.parametrize("reward", [0.1, -7.3, 1e6, 0.0])
def test_a_group_of_equal_rewards_gives_exactly_nothing(estimator: object, reward: float) -> None:
    # In float32 the mean of seven times 0.1 is not 0.1: over a standard deviation of about 0 that would be a signal.
    u, group = torch.tensor([reward] * 7 + [1.0, 2.0]), torch.tensor([0] * 7 + [1] * 2)
    found = estimator(u, group)  # type: ignore[operator]
    assert torch.equal(found[:7], torch.zeros(7)) and (found[7:] != 0).all()
    assert zero_signal(u, group) == 1


def test_a_group_of_one() -> None:
    u, group = double(4.0, 1.0, 3.0), torch.tensor([0, 1, 1])
    close(group_mean(u, group), [0, -1, 1])
    close(group_norm(u, group), [0, -1 / (2**0.5 + 1e-4), 1 / (2**0.5 + 1e-4)])
    with pytest.raises(StepError, match="1 of 2 prompts have a single answer"):
        rloo(u, group)
    assert zero_signal(u, group) == 1


def test_moving_average() -> None:
    found, mean, count = moving_average(double(1.0, 3.0))
    close(found, [-1.0, 1.0])
    assert (mean, count) == (2.0, 2)
    found, mean, count = moving_average(double(8.0), mean, count)  # the mean of 1, 3 and 8 is 4
    close(found, [4.0])
    assert (mean, count) == (4.0, 3)


def k_squared(u: torch.Tensor) -> torch.Tensor:
    """RPO's K-response square loss: the mean over pairs of answers of their squared difference."""
    i, j = torch.triu_indices(len(u), len(u), offset=1)
    return (u[i] - u[j]).square().mean()


@pytest.mark.parametrize("answers", [2, 3, 6])
def test_rloo_is_the_gradient_of_the_k_response_square_loss(answers: int) -> None:
    """E.6, 4: on policy, dL = -(4 beta / K) sum_i A_i d log pi(y_i), with the KL in the reward."""
    random, beta, eta = np.random.default_rng(3), 0.2, 1.5
    reward, reference = (torch.from_numpy(random.normal(0, 2, answers)) for _ in range(2))
    logp = torch.from_numpy(random.normal(-5, 2, answers)).requires_grad_()
    u = eta * reward - beta * (logp - reference)
    k_squared(u).backward()
    assert logp.grad is not None
    advantages = rloo(u.detach(), torch.zeros(answers, dtype=torch.long))
    close(logp.grad, -4 * beta / answers * advantages.numpy())


def test_completion_is_what_a_batch_says() -> None:
    from sparring.loop.learning.batches import Row, collate

    rows = [Row([1, 2], ([5] * 3, [5], [5] * 5)), Row([3], ([5] * 2, [5] * 4)), Row([4] * 9, ([5], [5] * 7))]
    assert collate(rows).completion.tolist() == COMPLETION.tolist()
