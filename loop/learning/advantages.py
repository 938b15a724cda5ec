"""The estimators of the policy gradient: from the scores of sampled answers to the advantage of each token.

The layout is flat, without padding: N completion tokens of S answers to G prompts. `completion` (N,) is the number of
each token's answer, sorted, as in loop.learning.batches.Batch; `group` (S,) is the number of each answer's prompt.
Groups may differ in size. Log-probs are in nats. Only `kl_estimate` is differentiated.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from sparring.loop.errors import ConfigError, StepError

KlEstimator = Literal["k1", "k2", "k3"]
KINDS: tuple[KlEstimator, ...] = get_args(KlEstimator)
FAR = 20.0  # nats; larger log-ratios are clamped to it, so that no exponential overflows


def kl_estimate(policy: Tensor, reference: Tensor, kind: KlEstimator) -> Tensor:
    """An estimate of KL(policy || reference) from each sample of the policy, with z = log policy - log reference.

    k1 = z, k2 = z^2 / 2, k3 = e^-z - 1 + z (Schulman, "Approximating KL divergence", 2020). k1 and k3 are unbiased, k2
    and k3 are never negative. As a loss on the policy, k2 has the gradient of the KL, k1 has a mean gradient of zero,
    and k3 has the gradient of KL(reference || policy). For k3, z is clamped at -20, so that e^-z does not overflow.
    """
    z = policy - reference
    if kind == "k1":
        return z
    if kind == "k2":
        return z.square() / 2
    if kind == "k3":
        z = z.clamp(min=-FAR)
        return torch.expm1(-z) + z
    raise ConfigError(f"there is no KL estimator {kind!r}; choose one of k1, k2, k3")


def token_rewards(
    score: Tensor,
    old: Tensor,
    reference: Tensor,
    completion: Tensor,
    kl_coef: float = 0.05,
    kl_estimator: KlEstimator = "k1",
) -> Tensor:
    """(N,): R_t = -kl_coef kl_t + 1[t = T] score, where T is the last token, also of an answer that was cut off.

    `score` is (S,); `old` and `reference` are log-probs (N,) of the sampling policy and the reference
    (arXiv:2406.09279).
    """
    last = torch.bincount(completion).cumsum(0) - 1
    return (-kl_coef * kl_estimate(old, reference, kl_estimator)).index_add(0, last, score)


def missing_eos(
    score: Tensor, stopped: Tensor, replacement: float | None = None, penalty: float | None = None
) -> Tensor:
    """The scores (S,), changed for answers that did not stop by themselves.

    These have `replacement` as their score (-10 in arXiv:2406.09279, -1 in 2403.17031), or their score minus `penalty`
    (TRL's missing_eos_penalty).
    """
    if replacement is not None:
        score = torch.where(stopped, score, replacement)
    return score if penalty is None else torch.where(stopped, score, score - penalty)


def gae(
    rewards: Tensor, values: Tensor, completion: Tensor, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """(N,) advantages and (N,) returns by generalised advantage estimation (arXiv:1506.02438).

    delta_t = R_t + gamma V_t+1 - V_t, A_t = delta_t + gamma lam A_t+1, return = A_t + V_t. `values` (N,) are those of
    the state before each token. The value after the last token is 0.
    """
    counts = torch.bincount(completion)
    step = torch.arange(len(completion), device=completion.device) - (counts.cumsum(0) - counts)[completion]
    width = int(counts.max())

    def padded(x: Tensor) -> Tensor:
        return x.new_zeros(len(counts), width + 1).index_put((completion, step), x)  # zero after the end

    value = padded(values)
    delta = padded(rewards)[:, :-1] + gamma * value[:, 1:] - value[:, :-1]
    advantages = torch.zeros_like(value)
    for t in reversed(range(width)):
        advantages[:, t] = delta[:, t] + gamma * lam * advantages[:, t + 1]
    flat = advantages[completion, step]
    return flat, flat + values


def whiten(x: Tensor, *, shift_mean: bool = True) -> Tensor:
    """x scaled to variance one over all elements, and to mean zero unless `shift_mean` is off (arXiv:2403.17031)."""
    mean = x.mean()
    white = (x - mean) * torch.rsqrt(x.var(correction=0) + 1e-8)
    return white if shift_mean else white + mean


def rloo(u: Tensor, group: Tensor) -> Tensor:
    """(S,): each reward minus the mean of the other answers to its prompt, REINFORCE Leave-One-Out (arXiv:2402.14740).

    Raises StepError for a prompt with one answer, which has no other answer to compare with.
    """
    mean, count = _means(u, group)
    if (alone := int((count == 1).sum())) > 0:
        raise StepError(
            f"{alone} of {int((count > 0).sum())} prompts have a single answer to learn from; rloo compares answers to "
            "one prompt and needs at least two. Sample more answers per prompt, have the builder drop prompts with a "
            "single answer, or use the algorithm reinforce, which compares across prompts"
        )
    return (u - mean[group]) * count[group] / (count - 1)[group]


def group_mean(u: Tensor, group: Tensor) -> Tensor:
    """(S,): reward minus the group's mean, Dr. GRPO (arXiv:2503.20783), which is (K - 1) / K times `rloo`."""
    return u - _means(u, group)[0][group]


def group_norm(u: Tensor, group: Tensor, *, eps: float = 1e-4) -> Tensor:
    """(S,): reward minus the group's mean, divided by its standard deviation (with K - 1), GRPO (arXiv:2402.03300)."""
    centred = group_mean(u, group)
    mean_square, count = _means(centred.square(), group)
    std = (mean_square * count / (count - 1).clamp(min=1)).sqrt()
    return centred / (std[group] + eps)


def moving_average(u: Tensor, mean: float = 0.0, count: int = 0) -> tuple[Tensor, float, int]:
    """(S,) rewards minus their average since training began, the new mean, and the new count.

    This is REINFORCE as in arXiv:2402.14740. `mean` and `count` are those of all earlier rewards; if there are none,
    the baseline is the mean of this batch.
    """
    after = count + len(u)
    new = (mean * count + float(u.sum())) / after
    return u - new, new, after


def zero_signal(u: Tensor, group: Tensor) -> int:
    """The number of groups whose answers all have the same reward; a group baseline leaves nothing to learn there."""
    low, high = _extremes(u, group)
    return int((low == high).sum())


def _means(u: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """(G,) the mean of each group and (G,) its size. The mean of equal rewards is exactly that reward.

    Otherwise the rounding error of u - mean would be divided by a standard deviation near zero.
    """
    count = torch.bincount(group)
    mean = torch.zeros(len(count), dtype=u.dtype, device=u.device).index_add(0, group, u) / count
    low, high = _extremes(u, group)
    return torch.where(low == high, low, mean), count


def _extremes(u: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    groups = int(group.max()) + 1
    low = u.new_full((groups,), torch.inf).scatter_reduce(0, group, u, "amin")
    high = u.new_full((groups,), -torch.inf).scatter_reduce(0, group, u, "amax")
    return low, high
