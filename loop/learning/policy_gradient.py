"""The losses of the policy gradient: pure functions of log-probabilities, advantages and values. No model, no config.

The layout is flat, as in loop.learning.advantages: N completion tokens of S answers. A loss has one value per token
(N,), and `normalised` sums them. An optimizer batch may be cut into any micro-batches; their shares add up to its loss.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sparring.loop.errors import ConfigError
from sparring.loop.learning.advantages import FAR, KINDS, kl_estimate

Level = Literal["token", "sequence"]
Normalisation = Literal["token", "sequence", "constant", "sum"]
TisMode = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]


@dataclass(frozen=True)
class Clipping:
    """The range in which the ratio policy / old counts, and its level: ratios of tokens or of whole answers."""

    level: Level = "token"
    low: float | None = 0.2  # the range begins at 1 - low; None switches clipping off
    high: float | None = None  # the range ends at 1 + high; None means the value of low
    dual: float | None = None  # c > 1 bounds the loss by -c A where A < 0 (arXiv:1912.09729)


@dataclass(frozen=True)
class Totals:
    """The size of an optimizer batch, over all its micro-batches."""

    answers: int
    tokens: int


def normalised(
    losses: Tensor,
    completion: Tensor,
    totals: Totals,
    normalisation: Normalisation = "token",
    max_tokens: int | None = None,
) -> Tensor:
    """The share of these tokens' losses (N,) in the loss of the optimizer batch, a scalar.

    token: the mean over tokens (PPO, arXiv:2403.17031; DAPO, 2503.14476). sequence: the mean over answers of their
    means over tokens (GRPO, 2402.03300). constant: the sum over tokens, divided by `max_tokens`, the longest possible
    answer, and by answers (Dr. GRPO, 2503.20783). sum: the mean over answers of their sums (RLOO, 2402.14740).
    """
    if normalisation == "token":
        return losses.sum() / totals.tokens
    if normalisation == "sequence":
        return (_sums(losses, completion) / torch.bincount(completion)).sum() / totals.answers
    if normalisation == "sum":
        return losses.sum() / totals.answers
    if normalisation == "constant":
        if max_tokens is None:
            raise ConfigError("normalisation 'constant' divides by max_tokens, which is not set; set max_tokens")
        return losses.sum() / (max_tokens * totals.answers)
    raise ConfigError(f"there is no normalisation {normalisation!r}; choose one of token, sequence, constant, sum")


def surrogate(log_ratio: Tensor, advantages: Tensor, clipping: Clipping) -> Tensor:
    """PPO's clipped surrogate (arXiv:1707.06347, Eq. 7), negated: max(-A r, -A clip(r, 1 - low, 1 + high)).

    One value per element of `log_ratio`, with r = e^log_ratio, where log_ratio is clamped to 20 nats.
    """
    ratio = _exp(log_ratio)
    loss = -advantages * ratio
    if clipping.low is not None:
        high = clipping.low if clipping.high is None else clipping.high
        loss = torch.maximum(loss, -advantages * ratio.clamp(1 - clipping.low, 1 + high))
    if clipping.dual is not None:
        loss = torch.where(advantages < 0, torch.minimum(loss, -clipping.dual * advantages), loss)
    return loss


def policy_losses(
    policy: Tensor, old: Tensor, advantages: Tensor, completion: Tensor, clipping: Clipping = Clipping()
) -> Tensor:
    """(N,) `surrogate` of tokens; with level "sequence" that of whole answers, divided equally among their tokens.

    With level "sequence" all tokens of an answer must have its advantage; normalisation "sum" gives the mean over
    answers.
    """
    ratios, advantages = _at_level(policy, old, advantages, completion, clipping.level)
    losses = surrogate(ratios, advantages, clipping)
    return losses if clipping.level == "token" else (losses / torch.bincount(completion))[completion]


def value_losses(values: Tensor, old: Tensor, returns: Tensor, *, clip: float | None = 0.2) -> Tensor:
    """(N,): half the larger of the squared errors of V and of V_old + clip(V - V_old) (arXiv:2403.17031).

    Without `clip`, half the squared error of V.
    """
    loss = (values - returns).square()
    if clip is not None:
        near = old + (values - old).clamp(-clip, clip)
        loss = torch.maximum(loss, (near - returns).square())
    return loss / 2


def importance_weights(
    old: Tensor, sampler: Tensor, completion: Tensor, *, cap: float = 2.0, mode: TisMode = "token_truncate"
) -> Tensor:
    """(N,) importance weights for samples of an engine whose log-probs `sampler` differ slightly from the policy's.

    The weights are e^(old - sampler), detached, of a token or of its whole answer. truncate: at most `cap` (truncated
    importance sampling; Yao et al., 2025). mask: 0 outside [1/cap, cap], so that such samples do not count.
    """
    if mode not in ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"):
        raise ConfigError(f"there is no tis_mode {mode!r}; choose token_ or sequence_ with truncate or mask")
    level, kind = mode.split("_")
    difference = (old - sampler).detach()
    weight = _exp(_sums(difference, completion)[completion] if level == "sequence" else difference)
    if kind == "truncate":
        return weight.clamp(max=cap)
    return torch.where((weight < 1 / cap) | (weight > cap), 0.0, weight)


def policy_metrics(
    policy: Tensor, old: Tensor, advantages: Tensor, completion: Tensor, totals: Totals, clipping: Clipping = Clipping()
) -> dict[str, Tensor]:
    """Shares of means over an optimizer batch, detached, which add up over its micro-batches.

    approx_kl_*: KL(old || policy) per token. ratio: policy / old. clip_share: how often clipping changes the loss. The
    last two are over tokens or over answers, depending on the level.
    """
    policy = policy.detach()
    ratios, advantages = _at_level(policy, old, advantages, completion, clipping.level)
    clipped = surrogate(ratios, advantages, clipping) != surrogate(ratios, advantages, Clipping(low=None))
    n = totals.tokens if clipping.level == "token" else totals.answers
    return {
        **{f"approx_kl_{kind}": kl_estimate(old, policy, kind).sum() / totals.tokens for kind in KINDS},
        "ratio": _exp(ratios).sum() / n,
        "clip_share": clipped.sum() / n,
    }


def mismatch(old: Tensor, sampler: Tensor, *, cap: float = 2.0) -> dict[str, float]:
    """The difference between the engine's and the trainer's log-probs (N,) for the same tokens and weights.

    mismatch_abs: the mean |difference|. mismatch_kl: KL(sampler || old), k3. mismatch_capped: the share of tokens with
    a ratio old / sampler above `cap`.
    """
    return {
        "mismatch_abs": float((old - sampler).abs().mean()),
        "mismatch_kl": float(kl_estimate(sampler, old, "k3").mean()),
        "mismatch_capped": float((_exp(old - sampler) > cap).float().mean()),
    }


def _at_level(
    policy: Tensor, old: Tensor, advantages: Tensor, completion: Tensor, level: Level
) -> tuple[Tensor, Tensor]:
    """log(policy / old) and advantages of tokens, or of answers: an answer has the advantage of its first token."""
    if level == "token":
        return policy - old, advantages
    counts = torch.bincount(completion)
    return _sums(policy - old, completion), advantages[counts.cumsum(0) - counts]


def _exp(log_ratio: Tensor) -> Tensor:
    return log_ratio.clamp(-FAR, FAR).exp()


def _sums(x: Tensor, completion: Tensor) -> Tensor:
    """(N,) to (S,): the sum over the tokens of each answer."""
    return x.new_zeros(int(completion[-1]) + 1).index_add(0, completion, x)
