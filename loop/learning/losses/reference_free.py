"""Losses that look at no reference: log-probs of the policy alone. Each is (B,); s is the logistic function.

`p` is the probability that chosen is the better answer. It softens the comparison; the likelihood term of cpo, orpo and
asft stays with the answer that is called chosen.
"""

from torch import Tensor

from sparring.loop.learning.losses.logps import Logps
from sparring.loop.learning.losses.scores import difference, each, log_odds, logistic, means, nll_chosen, smoothed, sums
from sparring.loop.ranges import NotNegative, Positive, Smoothing
from sparring.loop.traits import loss


@loss(reference_free=True)
def simpo(logps: Logps, *, beta: Positive = 2.0, gamma: NotNegative = 1.0, label_smoothing: Smoothing = 0.0) -> Tensor:
    """SimPO, Eq. 6 of arXiv:2405.14734: no reference, mean log-prob a token, target margin gamma."""
    return logistic(beta * difference(means(logps)) - gamma, smoothed(logps.p, label_smoothing))


@loss(reference_free=True)
def cpo(logps: Logps, *, beta: Positive = 0.1, alpha: NotNegative = 1.0) -> Tensor:
    """CPO, Eq. 3 of arXiv:2401.08417: -log s(beta (log P(chosen) - log P(rejected))) + alpha NLL(chosen).

    The NLL is a mean over the tokens of each answer. TRL's is a mean over all chosen tokens of a batch, which no split
    of the batch would add up to; the two agree where chosen answers are of one length.
    """
    return logistic(beta * difference(sums(logps)), logps.p) + alpha * nll_chosen(logps)


@loss(reference_free=True)
def orpo(logps: Logps, *, beta: NotNegative = 0.1) -> Tensor:
    """ORPO, arXiv:2403.07691: NLL(chosen) - beta log s(log-odds(chosen) - log-odds(rejected)).

    P in the odds P / (1 - P) is e to the mean log-prob a token. beta is the paper's lambda, named as in TRL. The NLL is
    a mean over completion tokens of each answer; TRL's is one over the batch, prompts included.
    """
    return nll_chosen(logps) + beta * logistic(difference(log_odds(logps)), logps.p)


@loss(reference_free=True)
def asft(logps: Logps, *, beta: NotNegative = 0.1) -> Tensor:
    """ASFT, arXiv:2409.10571: NLL(chosen) - beta (log s(log-odds(chosen)) + log s(-log-odds(rejected))).

    With hard labels it is -(1 + beta) log P(chosen) - beta log(1 - P(rejected)), P as in orpo. beta is the paper's
    lambda; its default is ours.
    """
    return nll_chosen(logps) + beta * each(logistic, log_odds(logps), logps.p)
