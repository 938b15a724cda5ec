"""The loss of a pair, and the two terms that look at more than one pair: SimCSE's and MetaRM's."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from sparring.judges.reward.losses import bradley_terry, centering, contrastive, direct_reward, sft, token_bradley_terry
from sparring.judges.reward.options import RewardTraining
from sparring.judges.reward.rows import PairRow
from sparring.judges.reward.scorers import Scored
from sparring.loop.learning.losses.scores import expected, smoothed


@dataclass(frozen=True)
class Targets:
    """Per pair, (N,): the probability that chosen is better, at least 0.5; the margin; the weight of its loss."""

    p: Tensor
    margin: Tensor
    weight: Tensor

    @classmethod
    def of(cls, rows: Sequence[PairRow], where: torch.device) -> "Targets":
        columns = ([r.p for r in rows], [r.preference.margin for r in rows], [r.preference.weight for r in rows])
        return cls(*(torch.tensor(column, dtype=torch.float32, device=where) for column in columns))

    def __getitem__(self, rows: Sequence[int]) -> "Targets":
        return Targets(*(column[list(rows)] for column in (self.p, self.margin, self.weight)))


def pair_loss(scored: Scored, target: Targets, options: RewardTraining) -> Tensor:
    """(B, M), not weighted: (1 - w) (ranking + centering + direct reward) + w sft, w the share `options.sft`.

    Ranking is Bradley-Terry's, of scores or of a head's token rewards. The direct term is its mean over the label. The
    language-model term counts only pairs with a winner: a tie has no answer to imitate.
    """
    p, chosen, rejected = target.p[:, None], scored.chosen, scored.rejected
    if scored.tokens is None:
        margin = target.margin[:, None] if options.margin else 0.0
        loss = bradley_terry(chosen - rejected, p, margin, options.label_smoothing)
    else:
        first, second, mask = scored.tokens
        q = smoothed(target.p, options.label_smoothing)
        loss = expected(partial(token_bradley_terry, mask=mask), (first, second), q)[:, None]
    if options.centering:
        loss = loss + options.centering * centering(chosen, rejected)
    if options.direct_reward:
        loss = loss + options.direct_reward * expected(direct_reward, (chosen, rejected), p)
    if scored.logprobs is None:
        return loss
    imitated = torch.where(target.p > 0.5, sft(scored.logprobs, options.sft_beta), 0.0)
    return (1 - options.sft) * loss + options.sft * imitated[:, None]


def contrast(
    view: Callable[[int, int], Tensor], micros: int, options: RewardTraining
) -> Iterator[tuple[Tensor, float]]:
    """SimCSE's term over a whole optimizer batch, whatever its split, in parts with their shares of the term's value.

    `view(j, v)` gives view v of micro-batch j, the same one on each call. All views are computed first, without
    gradient. The gradient of the term at them is then sent through one micro-batch after another (2101.06983).
    """

    def seen(j: int, v: int) -> Tensor:
        features = view(j, v)
        n = len(features) // 2
        return features[:n] - features[n:] if options.contrast == "differences" else features

    with torch.no_grad():
        views = [[seen(j, v) for j in range(micros)] for v in (0, 1)]
    first, second = (torch.cat(parts).requires_grad_() for parts in views)
    value = contrastive(first, second, options.temperature).mean()
    gradients = torch.autograd.grad(options.contrastive * value, (first, second))
    share = float(value.detach()) / (2 * micros)
    for v, gradient in enumerate(gradients):
        for j, part in enumerate(torch.split(gradient, [len(part) for part in views[v]])):
            yield (seen(j, v) * part).sum(), share


@contextmanager
def moved(parameters: Sequence[nn.Parameter], step: float) -> Iterator[None]:
    """Parameters at theta + step * gradient inside the block, then exactly at theta again (MetaRM, 2401.06080).

    The gradients on entry are consumed. Those computed inside the block are kept.
    """
    with torch.no_grad():
        before = [p.detach().clone() for p in parameters]
        for p in parameters:
            if p.grad is not None:
                p.add_(p.grad, alpha=step)
                p.grad = None
    yield
    with torch.no_grad():
        for p, value in zip(parameters, before, strict=True):
            p.copy_(value)
