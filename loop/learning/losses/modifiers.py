"""What changes the scores or the weights that a loss of pairs sees: (logps) -> Logps.

Those that change log-ratios move the reference, so that log-probs of the policy stay what they are: its likelihood
terms, length-averaged weights and metrics are not touched.
"""

from dataclasses import replace
from math import log
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sparring.loop.learning.losses.logps import Logps
from sparring.loop.ranges import Inside, NotNegative, Positive
from sparring.loop.traits import modifier

STEEPEST = 30.0  # e^30 squared, and times a log-ratio, is still a float32


@modifier(fits=lambda loss: loss.of_difference)
def f_divergence(
    logps: Logps, *, divergence: Literal["reverse_kl", "forward_kl", "js", "alpha"], alpha: Inside = 0.5
) -> Logps:
    """f-DPO, arXiv:2309.16240: the log-ratio x becomes f'(e^x), less its value where policy and reference agree.

    reverse_kl x, forward_kl 1 - e^-x, js log 2 + log s(x), alpha (1 - e^(-alpha x)) / alpha: between reverse (alpha to
    0) and forward KL (alpha to 1); `alpha` is of no use to the others. Exponentials go on as straight lines from e^30.
    It has a meaning only for losses of a difference of log-ratios: those in OF_DIFFERENCE of the registry.
    """

    def score(x: Tensor) -> Tensor:
        if divergence == "forward_kl":
            return 1 - _exp(-x)
        if divergence == "js":
            return log(2) + F.logsigmoid(x)
        return (1 - _exp(-alpha * x)) / alpha if divergence == "alpha" else x

    return _with_ratios(logps, score(logps.chosen_ratio), score(logps.rejected_ratio))


@modifier(fits=lambda loss: loss.clippable and not loss.reference_free)
def clip(logps: Logps, *, beta: Positive, chosen: NotNegative, rejected: NotNegative) -> Logps:
    """TSO's dual clip (arXiv:2409.02118): min(r, c_w) of chosen, max(r, -c_l) of rejected, r = beta log-ratio.

    Our reading: the paper's formula is not known to us. An answer past its bound is pushed no further. `beta` is that
    of the loss. It has no meaning for a loss without log-ratios.
    """
    return _with_ratios(
        logps, logps.chosen_ratio.clamp(max=chosen / beta), logps.rejected_ratio.clamp(min=-rejected / beta)
    )


@modifier()
def margin(logps: Logps, *, scale: NotNegative = 1.0) -> Logps:
    """A target margin for each pair: what a loss compares must differ by `scale` times the judge's margin.

    It is subtracted from the difference of scores in their own unit: nats of log-ratio, or nats a token for simpo,
    sigmoid_norm and length-averaged ipo, or of log-odds for orpo and asft. Losses of single answers ask each for half.
    """
    return replace(logps, offset=logps.offset + scale * logps.margin)


@modifier()
def length(logps: Logps, *, alpha: NotNegative) -> Logps:
    """R-DPO's length term (arXiv:2403.19159) for any loss: adds alpha (tokens of chosen - of rejected) to the gap.

    alpha is in the unit of the scores, as for margin: with sigmoid it is length_regularised at beta alpha.
    """
    return replace(logps, offset=logps.offset - alpha * logps.longer)


@modifier()
def wpo(logps: Logps) -> Logps:
    """WPO, arXiv:2406.11827: weights of e^(mean log-prob a token of chosen) times that of rejected, at most 1.

    Pairs that the policy would hardly write count less. No gradient. Left out: the paper's alignment, which divides
    each token's probability by its mean under the policy, the sum of squares of its distribution.
    """
    mean = logps.policy_chosen / logps.chosen_tokens + logps.policy_rejected / logps.rejected_tokens
    return replace(logps, weight=logps.weight * mean.exp().clamp(max=1).detach())


def _with_ratios(logps: Logps, chosen: Tensor, rejected: Tensor) -> Logps:
    return replace(
        logps, reference_chosen=logps.policy_chosen - chosen, reference_rejected=logps.policy_rejected - rejected
    )


def _exp(x: Tensor) -> Tensor:
    """e^x, and its tangent beyond STEEPEST: it overflows nowhere and keeps its slope."""
    return torch.exp(x.clamp(max=STEEPEST)) * (1 + F.relu(x - STEEPEST))
