"""The experience of a policy-gradient update: the advantages of a rollout, and the losses of its micro-batches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparring.loop.errors import ConfigError
from sparring.loop.learning import advantages as estimators
from sparring.loop.learning.advantages import KINDS, gae, kl_estimate, missing_eos, token_rewards, whiten
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
    """S answers to G prompts and the log-probs of their N tokens, in nats, before training."""

    completion: Tensor  # (N,) the number of the answer, sorted
    group: Tensor  # (S,) the number of the prompt, sorted
    score: Tensor  # (S,)
    stopped: Tensor  # (S,) bool: the answer ended by itself and was not cut off
    old: Tensor  # (N,) under the policy before the update, by the trainer
    sampler: Tensor | None = None  # (N,) under the same policy, by the engine
    reference: Tensor | None = None  # (N,)
    values: Tensor | None = None  # (N,) of the critic, before each token


@dataclass(frozen=True)
class Experience:
    """A rollout with its advantages. Row i of the update is group i."""

    completion: Tensor  # (N,)
    group: Tensor  # (S,)
    old: Tensor  # (N,)
    advantages: Tensor  # (N,)
    weights: Tensor | None = None  # (N,) importance weights that correct for the sampler's log-probs
    reference: Tensor | None = None  # (N,)
    values: Tensor | None = None  # (N,) before training
    returns: Tensor | None = None  # (N,)

    def take(self, rows: Sequence[int]) -> "Experience":
        """The part with these groups, in the layout that loop.learning.batches.collate gives a micro-batch of them."""
        answers = _positions(self.group, torch.tensor(list(rows), device=self.group.device))
        tokens = _positions(self.completion, answers)
        counts = torch.bincount(self.completion)[answers]
        taken = {
            name: value[tokens]
            for name, value in vars(self).items()
            if value is not None and name not in ("completion", "group")
        }
        numbers = torch.arange(len(answers), device=tokens.device)
        return Experience(numbers.repeat_interleave(counts), self.group[answers], **taken)

    def totals(self, rows: Sequence[int]) -> Totals:
        """The totals of an optimizer batch with these groups."""
        inside = torch.isin(self.group, torch.tensor(list(rows), device=self.group.device))
        return Totals(int(inside.sum()), int(torch.bincount(self.completion)[inside].sum()))


def experience(
    rollout: Rollout, options: PolicyGradient, *, earlier: tuple[float, int] = (0.0, 0)
) -> tuple[Experience, dict[str, float]]:
    """The experience of a whole rollout, and its metrics.

    `earlier` is the mean and the number of the rewards in earlier updates, for the baseline "moving_average". The
    metrics `baseline` and `baseline_count` are the values to pass to the next update. Raises ConfigError if the options
    need a reference or values and the rollout has none.
    """
    score = missing_eos(rollout.score, rollout.stopped, options.missing_eos, options.missing_eos_penalty)
    r = replace(rollout, score=score)
    if options.kl_coef and r.reference is None:
        raise ConfigError(f"kl_coef is {options.kl_coef} and there is no reference; set a reference, or kl_coef 0")
    metrics = _described(r)
    if isinstance(options, PPO):
        advantages, returns, more = _by_critic(r, options)
    else:
        (advantages, more), returns = _by_answer(r, options, earlier), None
    weights = None
    if r.sampler is not None:
        metrics |= mismatch(r.old, r.sampler, cap=options.tis_cap or float("inf"))
        if options.tis_cap is not None:
            weights = importance_weights(r.old, r.sampler, r.completion, cap=options.tis_cap, mode=options.tis_mode)
    rows = Experience(r.completion, r.group, r.old, advantages, weights, r.reference, r.values, returns)
    return rows, metrics | more


def policy_share(
    policy: Tensor, taken: Experience, options: PolicyGradient, totals: Totals
) -> tuple[Tensor, dict[str, float]]:
    """A micro-batch's share of the policy loss of its optimizer batch, with gradient, and of the metrics.

    `policy` (N,) holds the log-probs of the tokens of `taken`. The importance weights scale the surrogate, not the KL.
    """
    at = policy, taken.old, taken.advantages, taken.completion
    losses = policy_losses(*at, options.clipping)
    metrics = policy_metrics(*at, totals, options.clipping)
    if taken.weights is not None:
        losses = losses * taken.weights
    if taken.reference is not None:
        z = policy.detach()
        metrics |= {f"kl_{k}": kl_estimate(z, taken.reference, k).sum() / totals.tokens for k in KINDS}
        if options.kl_in == "loss":
            losses = losses + options.kl_coef * kl_estimate(policy, taken.reference, options.kl_estimator)
    loss = normalised(losses, taken.completion, totals, options.normalisation, options.max_tokens)
    return loss, {"policy_loss": float(loss.detach())} | {name: float(value) for name, value in metrics.items()}


def value_share(values: Tensor, taken: Experience, options: PPO, totals: Totals) -> tuple[Tensor, dict[str, float]]:
    """A micro-batch's share of value_coef times the critic's loss, with gradient, and of the metrics.

    `values` (N,) are the critic's current values. The loss is the mean over tokens.
    """
    if taken.values is None or taken.returns is None:
        raise ConfigError("the experience has no values; ppo needs the values of its critic before the update")
    losses = value_losses(values, taken.values, taken.returns, clip=options.value_clip)
    plain = value_losses(values.detach(), taken.values, taken.returns, clip=None)
    loss = losses.sum() / totals.tokens
    return options.value_coef * loss, {
        "value_loss": float(loss.detach()),
        "value_clip_share": float((losses.detach() != plain).sum() / totals.tokens),
    }


def _by_critic(r: Rollout, options: PPO) -> tuple[Tensor, Tensor, dict[str, float]]:
    if r.values is None:
        raise ConfigError("the rollout has no values; ppo needs the values of its critic before the update")
    reference = r.old if options.kl_in == "loss" or r.reference is None else r.reference
    rewards = token_rewards(r.score, r.old, reference, r.completion, options.kl_coef, options.kl_estimator)
    advantages, returns = gae(rewards, r.values, r.completion, gamma=options.gamma, lam=options.lam)
    metrics = {"return": float(returns.mean()), "value": float(r.values.mean())}
    if (spread := float(returns.var(correction=0))) > 0:
        metrics["explained_variance"] = 1 - float((returns - r.values).var(correction=0)) / spread
    return whiten(advantages) if options.whiten else advantages, returns, metrics


def _by_answer(r: Rollout, options: PolicyGradient, earlier: tuple[float, int]) -> tuple[Tensor, dict[str, float]]:
    """The advantages if an answer is one action. Its reward is the score, minus the summed KL if `kl_in` is reward."""
    u, metrics = r.score, dict[str, float]()
    if options.kl_in == "reward" and r.reference is not None:
        kl = kl_estimate(r.old, r.reference, options.kl_estimator)
        u = u.index_add(0, r.completion, -options.kl_coef * kl)
    if options.estimator == "moving_average":
        advantages, mean, count = estimators.moving_average(u, *earlier)
        metrics |= {"baseline": mean, "baseline_count": float(count)}
    elif options.estimator == "none":
        advantages = u
    else:
        advantages = BY_GROUP[options.estimator](u, r.group)
        metrics["zero_signal"] = estimators.zero_signal(r.score, r.group) / int((torch.bincount(r.group) > 0).sum())
    return (whiten(advantages) if options.whiten else advantages)[r.completion], metrics


BY_GROUP = {"rloo": estimators.rloo, "group_mean": estimators.group_mean, "group_norm": estimators.group_norm}


def _described(r: Rollout) -> dict[str, float]:
    metrics = {
        "score": float(r.score.mean()),
        "score_std": float(r.score.std(correction=0)),
        "tokens": float(torch.bincount(r.completion).float().mean()),
        "cut_off": float((~r.stopped).float().mean()),
    }
    if r.reference is not None:
        metrics["rollout_kl"] = float((r.old - r.reference).sum() / len(r.score))
    return metrics


def _positions(index: Tensor, values: Tensor) -> Tensor:
    """The positions of each of `values` in the sorted `index`, one value after the other."""
    left, right = (torch.searchsorted(index, values, right=side) for side in (False, True))
    counts = right - left
    before = counts.cumsum(0) - counts
    offset = (left - before).repeat_interleave(counts)
    return torch.arange(len(offset), device=index.device) + offset
