"""Losses of all answers to a prompt at once, (G,): groups may be of any sizes. r = beta log(policy / reference).

Losses of a sum or mean over answers multiply each by its weight; those that compare the answers of a group multiply the
group by its mean weight.
"""

from typing import Literal

from torch import Tensor

from sparring.loop.errors import DataError
from sparring.loop.learning.losses.logps import Groups
from sparring.loop.learning.losses.pointwise import kto_term, nca_term
from sparring.loop.learning.losses.scores import logistic
from sparring.loop.ranges import NotNegative, Positive
from sparring.loop.traits import loss


@loss(of="groups")
def rpo_nv_group(
    groups: Groups, *, beta: Positive = 0.1, eta: Positive = 1.0, distance: Literal["sq", "bwd", "fwd"] = "sq"
) -> Tensor:
    """RPO (arXiv:2502.00203) of K answers: our forms, since the paper's is not known to us; for K = 2 they are rpo_nv.

    sq: mean over pairs i < j of (u_i - u_j)^2, u = eta reward - r. On answers of the policy itself its gradient is
    that of RLOO with KL in the reward: -(4 beta / K) sum_i A_i grad log P(y_i), A_i = u_i - mean of the other u.
    bwd: KL(softmax(eta reward) || softmax(r)); fwd: KL(softmax(r) || softmax(eta reward)). But for a constant, bwd is
    InfoNCA (arXiv:2402.05369) at temperature 1 / eta. A group of one answer compares nothing: its loss is 0.
    """
    reward, implicit = eta * groups.reward, beta * groups.ratio
    if distance == "sq":
        found = _mean_square(groups, reward - implicit)
    else:
        target, policy = groups.log_softmax(reward), groups.log_softmax(implicit)
        first, second = (target, policy) if distance == "bwd" else (policy, target)
        found = groups.sum(first.exp() * (first - second))
    return groups.mean(groups.weight) * found


def _mean_square(groups: Groups, u: Tensor) -> Tensor:
    """Mean over pairs i < j of (u_i - u_j)^2, by way of the deviations from the group's mean."""
    deviation = u - groups.mean(u)[groups.group]
    return 2 * groups.sum(deviation**2) / (groups.sizes - 1).clamp(min=1)


@loss(of="groups")
def nca_group(groups: Groups, *, beta: Positive = 0.1, alpha: Positive = 1.0) -> Tensor:
    """NCA, arXiv:2402.05369: the sum over K answers of -w log s(r) - (1/K) log s(-r), w = softmax(reward / alpha)."""
    share = groups.log_softmax(groups.reward / alpha).exp()
    return groups.sum(groups.weight * nca_term(beta * groups.ratio, share, groups.sizes[groups.group]))


@loss(of="groups", baseline="mismatched")
def kto_unpaired(
    groups: Groups, *, beta: Positive = 0.1, desirable_weight: NotNegative = 1.0, undesirable_weight: NotNegative = 1.0
) -> Tensor:
    """KTO, arXiv:2402.01306, the mean over the group's answers; `reward` is the label, 1 desirable or 0 not.

    Desirable 1 - s(r - beta z0), else 1 - s(beta z0 - r); z0 is `baseline`, as for kto. Without one it is TRL's
    apo_zero_unpaired.
    """
    a = beta * (groups.ratio - groups.baseline)
    return groups.mean(groups.weight * kto_term(a, _labels(groups), desirable_weight, undesirable_weight))


@loss(of="groups", baseline="running")
def bco_unpaired(groups: Groups, *, beta: Positive = 0.1) -> Tensor:
    """BCO, arXiv:2404.04656, the mean over the group's answers; `reward` is the label, `baseline` as for bco."""
    return groups.mean(groups.weight * logistic(beta * (groups.ratio - groups.baseline), _labels(groups)))


@loss(of="groups", reference_free=True)
def sft(groups: Groups, *, reduce: Literal["mean", "sum"] = "mean") -> Tensor:
    """-log P of the group's answers, their mean; each a mean over its tokens, or their sum."""
    nll = -groups.policy if reduce == "sum" else -groups.policy / groups.tokens
    return groups.mean(groups.weight * nll)


def _labels(groups: Groups) -> Tensor:
    wrong = groups.reward[(groups.reward < 0) | (groups.reward > 1)]
    if len(wrong):
        raise DataError(
            f"a label is {wrong[0].item():g}; expected 1 (desirable) or 0 (not), or a probability between them. Choose "
            f"a builder that labels answers, such as threshold"
        )
    return groups.reward
