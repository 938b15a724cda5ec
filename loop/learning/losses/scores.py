"""The two numbers of a pair that a loss compares, (chosen, rejected), each (B,); and the links it puts them through.

Half of a pair's `offset` is taken from the chosen side and half is given to the rejected one: a loss of the difference
sees all of it, and one that looks at each answer by itself asks either for half.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from sparring.loop.learning.losses.logps import Logps

Sides = tuple[Tensor, Tensor]
CERTAIN = -1e-6  # a mean log-prob above this is taken for this: log(1 - P) needs P < 1


def _apart(chosen: Tensor, rejected: Tensor, logps: Logps) -> Sides:
    return chosen - logps.offset / 2, rejected + logps.offset / 2


def ratios(logps: Logps) -> Sides:
    """log(policy / reference) of the whole answer."""
    return _apart(logps.chosen_ratio, logps.rejected_ratio, logps)


def mean_ratios(logps: Logps) -> Sides:
    """log(policy / reference), a mean over tokens."""
    return _apart(logps.chosen_ratio / logps.chosen_tokens, logps.rejected_ratio / logps.rejected_tokens, logps)


def sums(logps: Logps) -> Sides:
    """log P of the whole answer under the policy."""
    return _apart(logps.policy_chosen, logps.policy_rejected, logps)


def means(logps: Logps) -> Sides:
    """log P under the policy, a mean over tokens."""
    return _apart(logps.policy_chosen / logps.chosen_tokens, logps.policy_rejected / logps.rejected_tokens, logps)


def log_odds(logps: Logps) -> Sides:
    """log P / (1 - P), where log P is the mean over tokens."""
    chosen = _log_odds(logps.policy_chosen / logps.chosen_tokens)
    return _apart(chosen, _log_odds(logps.policy_rejected / logps.rejected_tokens), logps)


def difference(sides: Sides) -> Tensor:
    return sides[0] - sides[1]


def nll_chosen(logps: Logps) -> Tensor:
    """-log P of the chosen answer, a mean over its tokens."""
    return -logps.policy_chosen / logps.chosen_tokens


def _log_odds(mean: Tensor) -> Tensor:
    mean = mean.clamp(max=CERTAIN)
    return mean - log1mexp(mean)


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x < 0, each half where it loses no digits (Maechler 2012)."""
    return torch.where(x > -0.6931472, torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))


def smoothed(p: Tensor, label_smoothing: float) -> Tensor:
    """A target probability, were labels swapped with probability `label_smoothing`."""
    return p * (1 - label_smoothing) + (1 - p) * label_smoothing


def logistic(a: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of a Bernoulli with logit `a` against its target: -t log s(a) - (1 - t) log s(-a)."""
    return -target * F.logsigmoid(a) - (1 - target) * F.logsigmoid(-a)


def bernoulli_kl(x: Tensor, y: Tensor) -> Tensor:
    """KL(Bernoulli(s(x)) || Bernoulli(s(y))) of two logits."""
    ones = torch.sigmoid(x) * (F.logsigmoid(x) - F.logsigmoid(y))
    return ones + torch.sigmoid(-x) * (F.logsigmoid(-x) - F.logsigmoid(-y))


def each(loss: Callable[[Tensor, Tensor], Tensor], sides: Sides, p: Tensor) -> Tensor:
    """A loss of (score, label) over both answers of a pair: chosen has the label p, rejected 1 - p."""
    return loss(sides[0], p) + loss(sides[1], 1 - p)


def expected(loss: Callable[[Tensor, Tensor], Tensor], sides: Sides, p: Tensor) -> Tensor:
    """A loss of (better, worse), where chosen is the better one with probability p."""
    chosen, rejected = sides
    return p * loss(chosen, rejected) + (1 - p) * loss(rejected, chosen)
