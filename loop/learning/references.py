"""The reference policies that an update compares with, and their log-probs of whole completions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sparring.loop.errors import ConfigError
from sparring.loop.ranges import Count, NotNegative, Share, check_fields
from sparring.loop.types import Checkpoint, Round

Kind = Literal["none", "initial", "previous", "ema", "sync", "mixture"]
ONE_OF_A_MIXTURE = ("previous", "initial")


@dataclass(frozen=True)
class Reference:
    """The kind of reference and its options.

    `none`: log-probs of 0. `initial`: the policy before round 1. `previous`: the policy that the round starts from.
    `ema`: an average over rounds, decay * (the reference of the previous round) + (1 - decay) * policy.
    `sync` (TR-DPO, arXiv:2404.09656): starts as the policy, and moves by `alpha` towards it every `every` steps.
    `mixture` (MRPO, arXiv:2405.16388): see `mix`. `weights` are those of `of`, None means adaptive ones; `clip` is a
    share of a log-prob.
    """

    kind: Kind = "previous"
    decay: Share = 0.9
    alpha: Share = 0.6
    every: Count = 512
    of: Sequence[str] = ONE_OF_A_MIXTURE
    weights: Sequence[float] | None = None
    clip: NotNegative | None = None

    def __post_init__(self) -> None:
        check_fields(self, "learn.reference.")
        if unknown := [name for name in self.of if name not in ONE_OF_A_MIXTURE]:
            raise ConfigError(f"learn.reference.of has {unknown[0]!r}; choose among {', '.join(ONE_OF_A_MIXTURE)}")
        if self.kind == "mixture" and len(set(self.of)) < 2:
            raise ConfigError(f"learn.reference.of is {list(self.of)}; a mixture needs two different policies")
        if self.weights is not None and (len(self.weights) != len(self.of) or abs(sum(self.weights) - 1) > 1e-6):
            raise ConfigError(
                f"learn.reference.weights is {list(self.weights)}; expected {len(self.of)} weights with the sum 1"
            )

    def of_round(self, rnd: Round) -> list[Checkpoint]:
        """The checkpoints whose log-probs the update needs."""
        if self.kind in ("none", "sync"):  # sync follows the policy during the update
            return []
        if self.kind == "mixture":
            return [rnd.policy if name == "previous" else rnd.initial for name in self.of]
        return [rnd.reference]

    def named(self, rnd: Round) -> list[str]:
        """The checkpoint ids that an update records as its references."""
        return [rnd.reference.id] if self.kind == "sync" else [each.id for each in self.of_round(rnd)]


def mix(references: Tensor, pairs: bool, weights: Sequence[float] | None = None, clip: float | None = None) -> Tensor:
    """The log of the mixture of R references, [sum_k a_k / pi_k]^-1, section 3 of MRPO, arXiv:2405.16388.

    `references` (R, B, C): log P of C completions of B rows. Returns (B, C). Without `weights`, a_k is proportional to
    |log pi_k(chosen) - log pi_k(rejected)| in each row if rows are pairs; otherwise all a_k are equal. With `clip`, the
    other references stay within a share of the first one's log-prob. The share is divided among chosen and rejected by
    the size of their mean log-probs over all rows, which is our reading of the paper's code.
    """
    first, others = references[:1], references[1:]
    if clip is not None:
        size = first.mean(1, keepdim=True).abs()
        room = clip * size / size.sum(-1, keepdim=True) * first.abs()
        others = torch.maximum(torch.minimum(others, first + room), first - room)
    every = torch.cat([first, others])
    if weights is not None:
        a = torch.tensor(weights, dtype=every.dtype)[:, None].expand(every.shape[:2])
    elif pairs:
        size = (every[..., 0] - every[..., 1]).abs() + 1e-6
        a = size / size.sum(0)
    else:
        a = torch.full(every.shape[:2], 1 / len(every), dtype=every.dtype)
    return -torch.logsumexp(a.log()[..., None] - every, 0)


def average(before: Any, policy: Any, decay: float) -> None:
    """Change the model `policy` to decay * before + (1 - decay) * policy, weight by weight."""
    with torch.no_grad():
        for old, new in zip(before.parameters(), policy.parameters(), strict=True):
            new.lerp_(old, decay)


def row_sums(tokens: Sequence[np.ndarray[Any, Any]], lengths: Sequence[Sequence[int]]) -> Tensor:
    """(B, C) sums over each of the C completions per row, from each row's tokens, one completion after the other."""
    totals = [
        [part.sum(dtype=np.float64) for part in np.split(row, np.cumsum(each)[:-1])]
        for row, each in zip(tokens, lengths, strict=True)
    ]
    return torch.tensor(totals, dtype=torch.float32)
