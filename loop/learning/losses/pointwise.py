"""Losses of each answer's own log-ratio: the sum over a pair's two answers, (B,); and the terms of one answer.

s is the logistic function, r = beta log(policy / reference). The chosen answer is desirable with probability `p`, the
rejected one with 1 - p.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sparring.loop.learning.losses.logps import Logps
from sparring.loop.learning.losses.scores import each, expected, logistic, ratios
from sparring.loop.ranges import NotNegative, Positive
from sparring.loop.traits import loss


@loss(baseline="mismatched")
def kto(
    logps: Logps, *, beta: Positive = 0.1, desirable_weight: NotNegative = 1.0, undesirable_weight: NotNegative = 1.0
) -> Tensor:
    """KTO, arXiv:2402.01306, of both answers: 1 - s(r - beta z0) for chosen, 1 - s(beta z0 - r) for rejected.

    z0 is `baseline`: max(0, mean log-ratio of answers to other prompts), without gradient. A pair is worth the sum of
    its answers; a trainer of single answers takes the mean, half of it.
    """

    def of(ratio: Tensor, label: Tensor) -> Tensor:
        return kto_term(beta * (ratio - logps.baseline), label, desirable_weight, undesirable_weight)

    return each(of, ratios(logps), logps.p)


@loss(baseline="running")
def bco(logps: Logps, *, beta: Positive = 0.1) -> Tensor:
    """BCO, arXiv:2404.04656: -log s(r - delta) for chosen, -log s(delta - r) for rejected.

    delta / beta is `baseline`: the running mean of log-ratios, without gradient. TRL's bco_pair leaves it out.
    """
    return each(lambda ratio, label: logistic(beta * (ratio - logps.baseline), label), ratios(logps), logps.p)


@loss()
def nca(logps: Logps, *, beta: Positive = 0.1) -> Tensor:
    """NCA for pairs, arXiv:2402.05369: -log s(r) of chosen, and -(1/2) log s(-r) of both.

    Unlike DPO it holds the likelihood of the chosen answer up. With a target p the answers have shares p and 1 - p.
    """
    return each(lambda ratio, share: nca_term(beta * ratio, share, 2), ratios(logps), logps.p)


@loss()
def sppo_hard(logps: Logps, *, beta: Positive = 1e-3) -> Tensor:
    """SPPO with P in {0, 1}, Eq. 4.7 of arXiv:2405.00675: (ratio - 1 / (2 beta))^2 of chosen, plus for rejected.

    beta is 1 / eta of the paper. `p` is not used: see sppo.
    """
    return each(lambda ratio, p: sppo_term(ratio, p, 1 / beta), ratios(logps), torch.ones_like(logps.p))


@loss()
def sppo(logps: Logps, *, eta: Positive = 1000.0) -> Tensor:
    """SPPO, Eq. 4.7 of arXiv:2405.00675: (ratio - eta (P - 1/2))^2 of both answers.

    P is the judge's probability that the answer wins: p for chosen, 1 - p for rejected; 1/2 asks for no change.
    """
    return each(lambda ratio, p: sppo_term(ratio, p, eta), ratios(logps), logps.p)


@loss()
def apo_zero(logps: Logps, *, beta: Positive = 0.1) -> Tensor:
    """APO-zero, Eq. 7 of arXiv:2408.06266: 1 - s(r) of chosen + s(r) of rejected; for answers above the policy's own.

    It is KTO without a baseline.
    """
    return each(lambda ratio, label: kto_term(beta * ratio, label, 1, 1), ratios(logps), logps.p)


@loss()
def apo_down(logps: Logps, *, beta: Positive = 0.1) -> Tensor:
    """APO-down, Eq. 8 of arXiv:2408.06266: s(r of chosen) + 1 - s(r of chosen - r of rejected).

    For answers below the policy's own: it pushes both down, the rejected one more. With a target p the expected loss
    over the label.
    """

    def of(won: Tensor, lost: Tensor) -> Tensor:
        return torch.sigmoid(beta * won) + torch.sigmoid(beta * (lost - won))

    return expected(of, ratios(logps), logps.p)


def kto_term(a: Tensor, label: Tensor, desirable_weight: float, undesirable_weight: float) -> Tensor:
    return desirable_weight * label * torch.sigmoid(-a) + undesirable_weight * (1 - label) * torch.sigmoid(a)


def nca_term(reward: Tensor, share: Tensor, answers: Tensor | int) -> Tensor:
    return -share * F.logsigmoid(reward) - F.logsigmoid(-reward) / answers


def sppo_term(ratio: Tensor, p: Tensor, eta: float) -> Tensor:
    return (ratio - eta * (p - 0.5)) ** 2
