"""References that are made of several policies, and their log-probs of whole completions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


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
