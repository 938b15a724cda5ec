"""Measures of a judge's verdicts on labelled pairs. Pure numpy.

A verdict is `delta`: above 0 if the judge prefers a, below 0 if it prefers b, 0 for a tie, NaN (or None) for no answer.
For a reward model it is the difference of the scores; for a judge of pairs it is P(a beats b) - 1/2. The label is
`p_a`, the probability that a is better: 1/2 is a tie. Arrays have shape [pairs]. `prompts` names the prompt of each
pair, because pairs of one prompt say less than as many pairs of different prompts.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from sparring.loop.evaluator import effective_n, wilson

Array = npt.NDArray[np.float64]
Values = Sequence[float | None] | Array


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` pairs with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Accuracy:
    """`share` is over the answered pairs with a decided label; a tie of the judge counts half. None: none answered."""

    share: Estimate | None
    decided: int  # pairs whose label is not a tie
    ties: int  # of them, those that the judge calls a tie
    abstained: int  # of them, those without an answer


@dataclass(frozen=True)
class PositionBias:
    """Shares of the duels that were answered in both orders."""

    duels: int
    disagree: float  # the winner changes with the order
    first: float  # the answer shown first wins both times
    second: float  # the answer shown second wins both times


def sigma(z: Array) -> Array:
    """1 / (1 + exp(-z)), without overflow; NaN stays NaN."""
    return np.asarray(0.5 * (1 + np.tanh(z / 2)))


def outcomes(delta: Values, p_a: Values) -> Array:
    """1 if the judge is right, 0 if wrong, 1/2 if it ties; NaN for a tied label and for no answer."""
    verdict, label = _array(delta), _array(p_a) - 0.5
    right = 0.5 + 0.5 * np.sign(verdict) * np.sign(label)
    return np.where(label == 0, np.nan, right)


def accuracy(delta: Values, p_a: Values, prompts: Sequence[Hashable]) -> Accuracy:
    """The share of right verdicts, with Wilson's interval on the effective number of pairs (by prompt)."""
    right, decided = outcomes(delta, p_a), _array(p_a) != 0.5
    answered = ~np.isnan(right)
    return Accuracy(
        share(right, prompts),
        decided=int(decided.sum()),
        ties=int((right == 0.5).sum()),
        abstained=int((decided & ~answered).sum()),
    )


def share(right: Values, prompts: Sequence[Hashable]) -> Estimate | None:
    """The mean of outcomes that are not NaN, with Wilson's interval on Kish's effective number of pairs."""
    groups: dict[Hashable, list[float]] = defaultdict(list)
    for value, prompt in zip(_array(right).tolist(), prompts, strict=True):
        if value == value:
            groups[prompt].append(value)
    if not groups:
        return None
    n = sum(map(len, groups.values()))
    value = sum(map(sum, groups.values())) / n
    return Estimate(value, *wilson(value, effective_n(list(groups.values()))), n)


def length_controlled(delta: Values, p_a: Values, longer: Values, prompts: Sequence[Hashable]) -> Estimate | None:
    """Mean of two accuracies: on pairs whose better answer is longer, and on pairs whose better answer is shorter.

    `longer` is the length of a minus the length of b; pairs of equal length are in neither. A judge that only looks at
    length gets exactly 1/2 here on any data, whatever its accuracy. Unlike a regression on length, the measure fits
    nothing and assumes no shape of the effect. The interval combines the two Wilson intervals (MOVER, Zou and Donner
    2008). None if one of the two kinds is missing: then length cannot be told from quality.
    """
    right = outcomes(delta, p_a)
    better_is_longer = np.sign(_array(p_a) - 0.5) * np.sign(_array(longer))
    shares = [share(np.where(better_is_longer == kind, right, np.nan), prompts) for kind in (1, -1)]
    one, other = shares
    if one is None or other is None:
        return None
    value = (one.value + other.value) / 2
    down = sqrt(sum((e.value - e.low) ** 2 for e in (one, other))) / 2
    up = sqrt(sum((e.high - e.value) ** 2 for e in (one, other))) / 2
    return Estimate(value, max(0.0, value - down), min(1.0, value + up), one.n + other.n)


def paired_difference(
    one: Values, other: Values, prompts: Sequence[Hashable], *, seed: int = 0, resamples: int = 2000
) -> Estimate | None:
    """Mean of one - other over the pairs that both answered, e.g. the outcomes of two judges.

    The 95 % interval is the percentile bootstrap over prompts: all pairs of a prompt are drawn together. None if fewer
    than two prompts have such a pair: one prompt says nothing about others.
    """
    difference = _array(one) - _array(other)
    answered = ~np.isnan(difference)
    names: dict[Hashable, int] = {}
    cluster = [names.setdefault(p, len(names)) for p, k in zip(prompts, answered, strict=True) if k]
    k = len(names)
    if k < 2:
        return None
    total, count = np.bincount(cluster, difference[answered]), np.bincount(cluster)
    random = np.random.default_rng(seed)
    block = max(1, 1_000_000 // k)  # resamples per block, to bound the memory
    drawn = (random.integers(0, k, (min(block, resamples - i), k)) for i in range(0, resamples, block))
    low, high = np.quantile(np.concatenate([total[i].sum(1) / count[i].sum(1) for i in drawn]), [0.025, 0.975])
    return Estimate(float(total.sum() / count.sum()), float(low), float(high), len(cluster))


def calibration_error(p: Values, p_a: Values, bins: int = 10) -> float | None:
    """Expected calibration error of P(a beats b), which is sigma(delta) for a Bradley-Terry reward model.

    The mean over pairs of |confidence - right| of their bin. A pair counts by its winner: confidence max(p, 1 - p) in
    [1/2, 1], right with the label's probability. The result is thus the same whichever answer is called a. Bins are of
    equal width (Guo et al., arXiv:1706.04599, eq. 5). None if no pair has an answer.
    """
    stated, label = _array(p), _array(p_a)
    stated, label = stated[~np.isnan(stated)], label[~np.isnan(stated)]
    if not len(stated):
        return None
    confidence = np.maximum(stated, 1 - stated)
    right = np.where(stated == 0.5, 0.5, np.where(stated > 0.5, label, 1 - label))
    place = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    filled = [place == k for k in range(bins) if (place == k).any()]
    gaps = (here.sum() * abs(confidence[here].mean() - right[here].mean()) for here in filled)
    return float(sum(gaps) / len(stated))


def position_bias(shown_first: Values, shown_second: Values) -> PositionBias | None:
    """Position bias from P(an answer wins) with that answer shown first, and shown second; None: no duel has both."""
    one, two = _array(shown_first), _array(shown_second)
    both = ~np.isnan(one) & ~np.isnan(two)
    if not both.any():
        return None
    first = (one[both] > 0.5) & (two[both] < 0.5)
    second = (one[both] < 0.5) & (two[both] > 0.5)
    return PositionBias(int(both.sum()), float((first | second).mean()), float(first.mean()), float(second.mean()))


def cohens_kappa(one: Sequence[Hashable], other: Sequence[Hashable]) -> float | None:
    """Agreement of two raters beyond chance: (observed - expected) / (1 - expected) (Cohen 1960).

    None if it is not defined: there are no items, or both raters give one and the same answer to all.
    """
    n = len(one)
    if n == 0:
        return None
    observed = sum(a == b for a, b in zip(one, other, strict=True)) / n
    expected = sum(sum(a == k for a in one) * sum(b == k for b in other) for k in {*one, *other}) / n**2
    return None if expected == 1 else (observed - expected) / (1 - expected)


def _array(values: Any) -> Array:
    return np.asarray(values, dtype=np.float64)
