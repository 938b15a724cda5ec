"""What is added beside a loss of pairs: (logps) -> (B,), to be minimised, of log-probs that no modifier has changed.

Two signs: likelihood terms add -log P and push an answer up; optimism adds +log P and pushes one down.
"""

from typing import Literal

from torch import Tensor

from sparring.loop.errors import DataError
from sparring.loop.learning.losses.logps import Logps
from sparring.loop.learning.losses.scores import nll_chosen as mean_nll
from sparring.loop.ranges import NotNegative
from sparring.loop.traits import regulariser


@regulariser()
def nll_chosen(logps: Logps, *, weight: NotNegative, reduce: Literal["mean", "sum"] = "mean") -> Tensor:
    """DPO + SFT (arXiv:2405.16436): -weight log P(chosen), summed over tokens as in its code, or their mean.

    The two differ by the number of tokens: 0.005 beta goes with sum, 0.2 with mean.
    """
    return weight * (-logps.policy_chosen if reduce == "sum" else mean_nll(logps))


@regulariser(aside="rationale")
def nll_rationale(logps: Logps, *, weight: NotNegative) -> Tensor:
    """Rationales beside pairs (arXiv:2407.14477): -weight log P(rationale | prompt, both answers, verdict).

    A mean over tokens: our reading, since the paper does not say. Raises DataError where there is no rationale.
    """
    missing = "each pair's rationale, and there is none; choose a judge that gives its reasons"
    return _nll("nll_rationale", weight, logps.policy_rationale, logps.rationale_tokens, missing)


@regulariser(aside="degree")
def degree_ce(logps: Logps, *, weight: NotNegative) -> Tensor:
    """How much is missing from an answer (SPO, arXiv:2409.17791): -weight log P(degree | prompt, what is left of it).

    Cross-entropy over the vocabulary, of the one digit that is right: our reading, see loop.learning.spo. Raises
    DataError where nothing was removed from any answer.
    """
    missing = "the degree of each answer, and there is none; learn from pairs of a round, which are cut on the way"
    return _nll("degree_ce", weight, logps.policy_degree, logps.degree_tokens, missing)


@regulariser(needs_sample=True)
def optimism(logps: Logps, *, weight: NotNegative) -> Tensor:
    """Eq. 4.2 of SELM (arXiv:2405.19332), and XPO (arXiv:2405.21046): weight log(policy / reference)(sample).

    The sample is the reference's: greedy for SELM, whose alpha beta is `weight`; drawn for XPO, whose alpha it is.
    Making it less likely rewards leaving the reference's ways. Raises DataError where there is no sample.
    """
    if logps.policy_sample is None or logps.reference_sample is None:
        raise DataError(
            "regulariser 'optimism' needs a third answer to each prompt, sampled from the reference, and there is "
            "none; choose a pair builder that gives a reference sample"
        )
    return weight * (logps.policy_sample - logps.reference_sample)


def _nll(name: str, weight: float, logp: Tensor | None, tokens: Tensor | None, missing: str) -> Tensor:
    """-weight log P of what is learned beside a pair, a mean over its tokens."""
    if logp is None or tokens is None:
        raise DataError(f"regulariser {name!r} needs the log-prob of {missing}")
    return -weight * logp / tokens
