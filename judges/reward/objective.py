"""What a pair costs, and the two terms that look at more than one pair: SimCSE's and MetaRM's."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparring.judges.reward.losses import bradley_terry, centering, contrastive, direct_reward, sft, token_bradley_terry
from sparring.judges.reward.options import RewardTraining
from sparring.judges.reward.rows import PairRow
from sparring.judges.reward.scorers import Scored


@dataclass(frozen=True)
class Targets:
    """Of each pair, (N,): the probability that chosen is better, from 0.5 on; the margin; the weight of its loss."""

    p: Tensor
    margin: Tensor
    weight: Tensor

    @classmethod
    def of(cls, rows: Sequence[PairRow], where: torch.device) -> "Targets":
        columns = ([r.p for r in rows], [r.preference.margin for r in rows], [r.preference.weight for r in rows])
        return cls(*(torch.tensor(column, dtype=torch.float32, device=where) for column in columns))

    def __getitem__(self, rows: Sequence[int]) -> "Targets":
        return Targets(*(column[list(rows)] for column in (self.p, self.margin, self.weight)))


def pair_loss(found: Scored, target: Targets, options: RewardTraining) -> Tensor:
    """(B, M), not weighted: (1 - w) (ranking + centering + direct reward) + w sft, w the share `options.sft`.

    Ranking is Bradley-Terry's, of scores or of a head's token rewards. The direct term is its mean over the label; the
    language-model term counts for pairs with a winner only: a tie has no answer to imitate.
    """
    p, chosen, rejected = target.p[:, None], found.chosen, found.rejected
    if found.tokens is None:
        margin = target.margin[:, None] if options.margin else 0.0
        loss = bradley_terry(chosen - rejected, p, margin, options.label_smoothing)
    else:
        first, second, mask = found.tokens
        q = p[:, 0] * (1 - options.label_smoothing) + (1 - p[:, 0]) * options.label_smoothing
        either = q * token_bradley_terry(first, second, mask) + (1 - q) * token_bradley_terry(second, first, mask)
        loss = either[:, None]
    if options.centering:
        loss = loss + options.centering * centering(chosen, rejected)
    if options.direct_reward:
        direct = p * direct_reward(chosen, rejected) + (1 - p) * direct_reward(rejected, chosen)
        loss = loss + options.direct_reward * direct
    if found.logprobs is None:
        return loss
    imitated = torch.where(target.p > 0.5, sft(found.logprobs, options.sft_beta), 0.0)
    return (1 - options.sft) * loss + options.sft * imitated[:, None]


def contrast(
    view: Callable[[int, int], Tensor], micros: int, options: RewardTraining, backward: Callable[[Tensor], None]
) -> float:
    """Gradients of SimCSE's term over a whole optimizer batch, whatever its split; returns the term's mean.

    `view(j, v)` gives view v of micro-batch j (the same each time it is asked). All views are computed first, without
    gradient; the gradient of the term at them is then sent through one micro-batch after another (2101.06983).
    """

    def seen(j: int, v: int) -> Tensor:
        features = view(j, v)
        n = len(features) // 2
        return features[:n] - features[n:] if options.contrast == "differences" else features

    with torch.no_grad():
        found = [[seen(j, v) for j in range(micros)] for v in (0, 1)]
    first, second = (torch.cat(views).requires_grad_() for views in found)
    value = contrastive(first, second, options.temperature).mean()
    gradients = torch.autograd.grad(options.contrastive * value, (first, second))
    sizes = [len(part) for part in found[0]]
    for v, gradient in enumerate(gradients):
        for j, part in enumerate(torch.split(gradient, sizes)):
            backward((seen(j, v) * part).sum())
    return float(value.detach())


@contextmanager
def moved(parameters: Sequence[nn.Parameter], step: float) -> Iterator[None]:
    """Parameters at theta + step * gradient for a while, then at theta again, to the bit (MetaRM, 2401.06080).

    The gradients are used up; those computed in the meantime are kept.
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
