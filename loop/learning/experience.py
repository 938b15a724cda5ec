"""What a policy-gradient update learns from: a rollout, made once into advantages, and the loss of parts of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparring.loop.errors import ConfigError
from sparring.loop.learning import advantages as estimators
from sparring.loop.learning.advantages import gae, kl_estimate, missing_eos, token_counts, token_rewards, whiten
from sparring.loop.learning.policy_gradient import (
    Totals,
    importance_weights,
    mismatch,
    normalised,
    policy_losses,
    policy_metrics,
    value_losses,
)
from sparring.loop.learning.policy_options import PPO, PolicyGradient


@dataclass(frozen=True)
class Rollout:
    """S answers to G prompts and the log-probs of their N tokens, in nats, before anything is learned from them."""

    completion: Tensor  # (N,) which answer, sorted
    group: Tensor  # (S,) which prompt, sorted
    score: Tensor  # (S,)
    stopped: Tensor  # (S,) bool: it ended by itself, and was not cut off
    old: Tensor  # (N,) under the policy that is about to learn, by the trainer
    sampler: Tensor | None = None  # (N,) as the engine saw them
    reference: Tensor | None = None  # (N,)
    values: Tensor | None = None  # (N,) of the critic, before each token


@dataclass(frozen=True)
class Experience:
    """A rollout with its advantages. The rows of an update are its groups, by number."""

    completion: Tensor  # (N,)
    group: Tensor  # (S,)
    old: Tensor  # (N,)
    advantages: Tensor  # (N,)
    weights: Tensor | None = None  # (N,) for what the sampler was off
    reference: Tensor | None = None  # (N,)
    values: Tensor | None = None  # (N,) before learning
    returns: Tensor | None = None  # (N,)

    def take(self, rows: Sequence[int]) -> "Experience":
        """These groups in this order, as loop.learning.batches.collate lays out a micro-batch of them."""
        answers = _positions(self.group, torch.tensor(list(rows), device=self.group.device))
        tokens = _positions(self.completion, answers)
        counts = token_counts(self.completion)[answers]
        taken = {
            name: value[tokens]
            for name, value in vars(self).items()
            if value is not None and name not in ("completion", "group")
        }
        numbers = torch.arange(len(answers), device=tokens.device)
        return Experience(numbers.repeat_interleave(counts), self.group[answers], **taken)

    def totals(self, rows: Sequence[int]) -> Totals:
        """Of an optimizer batch of these groups."""
        inside = torch.isin(self.group, torch.tensor(list(rows), device=self.group.device))
        return Totals(int(inside.sum()), int(token_counts(self.completion)[inside].sum()))


def experience(
    rollout: Rollout, options: PolicyGradient, *, earlier: tuple[float, int] = (0.0, 0)
) -> tuple[Experience, dict[str, float]]:
    """The advantages of a whole rollout, and metrics of it.

    `earlier` is the mean and number of the rewards of the updates before, for the baseline "moving_average"; the
    metrics `baseline` and `baseline_count` are what to hand to the next. Raises ConfigError where the reference or the
    values are missing that the options need.
    """
    r = replace(
        rollout,
        score=missing_eos(
            rollout.score, rollout.stopped, replacement=options.missing_eos, penalty=options.missing_eos_penalty
        ),
    )
    if options.kl_coef and r.reference is None:
        raise ConfigError(f"kl_coef is {options.kl_coef} and there is no reference; set a reference, or kl_coef 0")
    found = _described(r)
    if isinstance(options, PPO):
        advantages, returns, more = _by_critic(r, options)
    else:
        (advantages, more), returns = _by_answer(r, options, earlier), None
    weights = None
    if r.sampler is not None:
        found |= mismatch(r.old, r.sampler, cap=options.tis_cap or float("inf"))
        if options.tis_cap is not None:
            weights = importance_weights(r.old, r.sampler, r.completion, cap=options.tis_cap, mode=options.tis_mode)
    made = Experience(r.completion, r.group, r.old, advantages, weights, r.reference, r.values, returns)
    return made, found | more


def policy_share(
    policy: Tensor, taken: Experience, options: PolicyGradient, totals: Totals
) -> tuple[Tensor, dict[str, float]]:
    """The share of a micro-batch in the policy's loss of its optimizer batch, with gradient, and in its metrics.

    `policy` (N,) are the log-probs of the tokens of `taken`. The sampler's weights are on the surrogate, not on a KL.
    """
    at = policy, taken.old, taken.advantages, taken.completion
    losses = policy_losses(*at, options.clipping)
    found = policy_metrics(*at, totals, options.clipping)
    if taken.weights is not None:
        losses = losses * taken.weights
    if taken.reference is not None:
        z = policy.detach()
        found |= {f"kl_{k}": kl_estimate(z, taken.reference, k).sum() / totals.tokens for k in ("k1", "k2", "k3")}
        if options.kl_in == "loss":
            losses = losses + options.kl_coef * kl_estimate(policy, taken.reference, options.kl_estimator)
    loss = normalised(
        losses, taken.completion, totals, normalisation=options.normalisation, max_tokens=options.max_tokens
    )
    return loss, {"policy_loss": float(loss.detach())} | {name: float(value) for name, value in found.items()}


def value_share(values: Tensor, taken: Experience, options: PPO, totals: Totals) -> tuple[Tensor, dict[str, float]]:
    """The share of a micro-batch in value_coef times the critic's loss, with gradient, and in its metrics.

    `values` (N,) are the critic's now. The mean is over tokens.
    """
    if taken.values is None or taken.returns is None:
        raise ConfigError("the experience has no values; ppo needs those of its critic before learning")
    losses = value_losses(values, taken.values, taken.returns, clip=options.value_clip)
    plain = value_losses(values.detach(), taken.values, taken.returns, clip=None)
    loss = losses.sum() / totals.tokens
    return options.value_coef * loss, {
        "value_loss": float(loss.detach()),
        "value_clip_share": float((losses.detach() != plain).sum() / totals.tokens),
    }


def _by_critic(r: Rollout, options: PPO) -> tuple[Tensor, Tensor, dict[str, float]]:
    if r.values is None:
        raise ConfigError("the rollout has no values; ppo needs those of its critic before learning")
    in_reward = options.kl_in == "reward" and r.reference is not None
    rewards = token_rewards(
        r.score,
        r.old,
        r.reference if in_reward and r.reference is not None else r.old,
        r.completion,
        kl_coef=options.kl_coef,
        kl_estimator=options.kl_estimator,
    )
    advantages, returns = gae(rewards, r.values, r.completion, gamma=options.gamma, lam=options.lam)
    found = {"return": float(returns.mean()), "value": float(r.values.mean())}
    if (spread := float(returns.var(correction=0))) > 0:
        found["explained_variance"] = 1 - float((returns - r.values).var(correction=0)) / spread
    return whiten(advantages) if options.whiten else advantages, returns, found


def _by_answer(r: Rollout, options: PolicyGradient, earlier: tuple[float, int]) -> tuple[Tensor, dict[str, float]]:
    """An answer is one action: its reward is the score less the KL summed over its tokens, if that is in the reward."""
    u, found = r.score, dict[str, float]()
    if options.kl_in == "reward" and r.reference is not None:
        kl = kl_estimate(r.old, r.reference, options.kl_estimator)
        u = u.index_add(0, r.completion, -options.kl_coef * kl)
    if options.estimator == "moving_average":
        advantages, mean, count = estimators.moving_average(u, *earlier)
        found |= {"baseline": mean, "baseline_count": float(count)}
    elif options.estimator == "none":
        advantages = u
    else:
        advantages = BY_GROUP[options.estimator](u, r.group)
        found["zero_signal"] = estimators.zero_signal(r.score, r.group) / int((torch.bincount(r.group) > 0).sum())
    return (whiten(advantages) if options.whiten else advantages)[r.completion], found


BY_GROUP = {"rloo": estimators.rloo, "group_mean": estimators.group_mean, "group_norm": estimators.group_norm}


def _described(r: Rollout) -> dict[str, float]:
    found = {
        "score": float(r.score.mean()),
        "score_std": float(r.score.std(correction=0)),
        "tokens": float(token_counts(r.completion).float().mean()),
        "cut_off": float((~r.stopped).float().mean()),
    }
    if r.reference is not None:
        found["rollout_kl"] = float((r.old - r.reference).sum() / len(r.score))
    return found


def _positions(index: Tensor, wanted: Tensor) -> Tensor:
    """Where the sorted `index` is each of `wanted`, one after the other."""
    left, right = (torch.searchsorted(index, wanted, right=side) for side in (False, True))
    counts = right - left
    before = counts.cumsum(0) - counts
    offset = (left - before).repeat_interleave(counts)
    return torch.arange(len(offset), device=index.device) + offset
