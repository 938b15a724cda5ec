"""Losses of the difference of two log-ratios, of log-probs summed over tokens unless they say otherwise.

Each is (B,), with a = beta gap and gap = log(policy / reference)(chosen) - log(policy / reference)(rejected). s is the
logistic function. `p` is the probability that chosen is the better answer, 1 when labels are hard.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sparring.loop.learning.losses.logps import Logps
from sparring.loop.learning.losses.scores import (
    bernoulli_kl,
    difference,
    expected,
    logistic,
    mean_ratios,
    ratios,
    smoothed,
    sums,
)
from sparring.loop.ranges import Noise, NotNegative, Positive, Smoothing, UpToOne
from sparring.loop.traits import loss


@loss(of_difference=True)
def sigmoid(logps: Logps, *, beta: Positive = 0.1, label_smoothing: Smoothing = 0.0) -> Tensor:
    """DPO, Eq. 7 of arXiv:2305.18290: -log s(a). Smoothed it is cDPO, Eq. 3 of Mitchell's note of 2023.

    Without smoothing its minimum is at infinity; with it, at a = log((1 - e) / e).
    """
    return logistic(beta * difference(ratios(logps)), smoothed(logps.p, label_smoothing))


@loss(of_difference=True)
def cdpo(logps: Logps, *, beta: Positive = 0.1, label_smoothing: Noise = 0.1) -> Tensor:
    """Conservative DPO, Eq. 3 of Mitchell's note of 2023: -(1 - e) log s(a) - e log s(-a), labels wrong at rate e."""
    return sigmoid(logps, beta=beta, label_smoothing=label_smoothing)


@loss(of_difference=True)
def robust(logps: Logps, *, beta: Positive = 0.1, label_smoothing: Noise = 0.1) -> Tensor:
    """Robust DPO, arXiv:2403.00409: (-(1 - e) log s(a) + e log s(-a)) / (1 - 2e).

    Over labels that are wrong at rate e its mean is DPO's loss of the right ones. It has no lower bound: past
    a = log((1 - e) / e) it goes on falling, as DPO does. A target p is the expectation over the label.
    """
    e = label_smoothing
    return logistic(beta * difference(ratios(logps)), (logps.p - e) / (1 - 2 * e))


@loss(of_difference=True)
def ipo(logps: Logps, *, beta: Positive = 0.1, length_norm: bool = False) -> Tensor:
    """IPO, Eq. 17 of arXiv:2310.12036: (gap - 1 / (2 beta))^2. A target p moves it to (p - 1/2) / beta (Eq. 11).

    `length_norm` averages log-ratios over tokens, as TRL does: another algorithm, for which beta means another thing.
    """
    sides = mean_ratios(logps) if length_norm else ratios(logps)
    return (difference(sides) - (logps.p - 0.5) / beta) ** 2


@loss(of_difference=True)
def hinge(logps: Logps, *, beta: Positive = 0.1) -> Tensor:
    """SLiC's margin loss on the DPO logit, arXiv:2305.10425 and section 3 of arXiv:2309.06657: max(0, 1 - a).

    With a target p it is the expected loss over the label.
    """
    return expected(lambda won, lost: F.relu(1 - beta * (won - lost)), ratios(logps), logps.p)


@loss(of_difference=True)
def sigmoid_norm(logps: Logps, *, beta: Positive = 5.0, label_smoothing: Smoothing = 0.0) -> Tensor:
    """DPO on log-ratios averaged over tokens (arXiv:2411.15124): -log s(beta (mean ratio chosen - rejected)).

    An average is about as many times smaller as an answer has tokens, hence the larger beta.
    """
    return logistic(beta * difference(mean_ratios(logps)), smoothed(logps.p, label_smoothing))


@loss(of_difference=True)
def exo(logps: Logps, *, beta: Positive = 0.1, label_smoothing: Noise = 1e-3) -> Tensor:
    """EXO for pairs, Eq. 16 of arXiv:2402.00856: KL(Bernoulli(s(a)) || Bernoulli(1 - e)).

    The policy stands first in the KL, so it seeks a mode. A target p is smoothed by e; e = 0 would ask for log 0.
    """
    target = smoothed(logps.p, label_smoothing)
    return bernoulli_kl(beta * difference(ratios(logps)), torch.logit(target))


@loss(of_difference=True)
def discopop(logps: Logps, *, beta: Positive = 0.1, tau: UpToOne = 0.05) -> Tensor:
    """DiscoPOP's log-ratio modulated loss, Eq. 5 of arXiv:2406.08414: (1 - m) (-log s(a)) + m e^-a, m = s(a / tau).

    Found by search, not convex: between its branches it may rise. With a target p the expected loss over the label.
    Above tau = 1 it would grow as an exponential, and overflow.
    """

    def modulated(won: Tensor, lost: Tensor) -> Tensor:
        a = beta * (won - lost)
        # e^-a alone overflows where its factor m is nought.
        return -torch.sigmoid(-a / tau) * F.logsigmoid(a) + torch.exp(F.logsigmoid(a / tau) - a)

    return expected(modulated, ratios(logps), logps.p)


@loss()
def dpop(logps: Logps, *, beta: Positive = 0.3, dpop_lambda: NotNegative = 50.0) -> Tensor:
    """DPO-Positive, arXiv:2402.13228: -log s(beta (gap - lambda max(0, log(reference / policy)(chosen)))).

    It punishes a better answer that grew less likely than under the reference. With a target p the expected loss over
    the label.
    """
    gap = difference(ratios(logps))
    won = gap - dpop_lambda * F.relu(-logps.chosen_ratio)
    lost = -gap - dpop_lambda * F.relu(-logps.rejected_ratio)
    return -logps.p * F.logsigmoid(beta * won) - (1 - logps.p) * F.logsigmoid(beta * lost)


@loss(of_difference=True)
def length_regularised(
    logps: Logps, *, beta: Positive = 0.1, alpha: NotNegative = 0.01, label_smoothing: Smoothing = 0.0
) -> Tensor:
    """R-DPO, Eq. 9 of arXiv:2403.19159: -log s(a + alpha (tokens of chosen - tokens of rejected)).

    A pair whose chosen answer is the longer one counts as learned sooner, so length is a weaker reason to prefer.
    """
    longer = alpha * logps.longer
    return logistic(beta * difference(ratios(logps)) + longer, smoothed(logps.p, label_smoothing))


@loss(of_difference=True)
def rpo_nv(
    logps: Logps, *, beta: Positive = 0.1, eta: Positive = 1.0, distance: Literal["sq", "bwd", "fwd"] = "bwd"
) -> Tensor:
    """Reward-aware Preference Optimization, arXiv:2502.00203: a distance of a = beta gap to b = eta margin.

    sq (a - b)^2, bwd KL(Bernoulli(s(b)) || Bernoulli(s(a))), fwd KL(Bernoulli(s(a)) || Bernoulli(s(b))); their slopes
    in a are 2 (a - b), s(a) - s(b) and s(a) s(-a) (a - b). eta sets the scale of the judge's scores: bring them to
    spread 1 first, or bwd is DPO (b to infinity). The target is the margin: `p` is not used.
    """
    a, b = beta * difference(ratios(logps)), eta * logps.margin
    if distance == "sq":
        return (a - b) ** 2
    return bernoulli_kl(b, a) if distance == "bwd" else bernoulli_kl(a, b)


@loss(batch_dependent=True, clippable=False)
def aot(logps: Logps, *, beta: Positive = 0.1, label_smoothing: Smoothing = 0.0) -> Tensor:
    """Alignment via Optimal Transport, paired, arXiv:2406.05882: DPO between sorted differences of log-probs.

    The policy's difference is compared with the reference's of the same rank, so a value depends on the whole batch.
    It stands at the pair of the policy's difference, whose `p` it uses: our reading, since the paper has neither p nor
    weights.
    """
    policy = difference(sums(logps))
    reference = logps.reference_chosen - logps.reference_rejected
    return logistic(beta * (policy - _of_same_rank(reference, policy)), smoothed(logps.p, label_smoothing))


@loss(batch_dependent=True)
def aot_unpaired(logps: Logps, *, beta: Positive = 0.1, label_smoothing: Smoothing = 0.0) -> Tensor:
    """AOT, unpaired, arXiv:2406.05882: DPO between the sorted log-ratios of chosen and of rejected answers.

    A chosen answer meets the rejected one of its rank, be it of another prompt: a value depends on the whole batch. It
    stands at the pair of the chosen answer, whose `p` it uses (our reading, as for aot).
    """
    chosen, rejected = ratios(logps)
    return logistic(beta * (chosen - _of_same_rank(rejected, chosen)), smoothed(logps.p, label_smoothing))


def _of_same_rank(values: Tensor, of: Tensor) -> Tensor:
    """For each element of `of`, the element of `values` that has its rank."""
    return values.sort(stable=True).values[of.argsort(stable=True).argsort()]
