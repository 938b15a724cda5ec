"""Doubtful labels: the verdicts of several reward models on each pair, and labels from a model's own confidence.

Pure numpy. Differences of scores must come from models that were not trained on the pair (out of fold): noise that a
model has memorised looks like a strong preference.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from sparring.judges.measure import Array, sigma
from sparring.loop.errors import ConfigError, DataError
from sparring.loop.labelled_pairs import Preference

Variant = Literal["flip", "margin", "flip_margin", "soft_margin"]


@dataclass(frozen=True)
class Relabelled:
    """P(the answer labelled better is better), the margin and the weight; weight 0 drops the pair. [pairs]"""

    p: Array
    margin: Array
    weight: Array


def strength(differences: Any) -> Array:
    """Preference strength (arXiv:2401.06080, eq. 3): the mean of score(labelled better) - score(other). [pairs]

    `differences` are those of M models, [models, pairs]. Raises DataError if one is not a finite number, or M is 0.
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 2 or not d.shape[0] or not np.isfinite(d).all():
        raise DataError(
            f"score differences have shape {d.shape}; expected finite numbers [models, pairs], one model or more"
        )
    return np.asarray(d.mean(0))


def relabel(
    strengths: Array,
    variant: Variant = "soft_margin",
    *,
    wrong: float = 0.2,
    ambiguous: float = 0.2,
    smooth: float = 0.1,
    drop_ambiguous: bool = False,
) -> Relabelled:
    """New labels by strength (arXiv:2401.06080, section 2.3): the weakest share is mostly wrong, the next ambiguous.

    Among the `wrong` share of pairs with the lowest mean, those below 0 are flipped ("flip", "flip_margin") or softened
    ("soft_margin") to P = sigma(mean / std of all means), which is further below 1/2 the more the models disagree with
    the label. The `ambiguous` share above them gets P = 1 - smooth, or is dropped. "margin" changes no label. All
    variants except "flip" set the margin |mean|, in units of the std of all means, on pairs whose label is kept or
    flipped. A label that the models disagree with and that is not flipped has margin 0. For the loss, see Preference
    (the margin is inside the sigmoid). Raises ConfigError for an unknown variant or shares out of range.
    """
    if variant not in get_args(Variant):
        raise ConfigError(f"there is no relabelling {variant!r}; choose one of {', '.join(get_args(Variant))}")
    if not (0 <= wrong <= 1 and 0 <= ambiguous <= 1 - wrong and 0 <= smooth < 0.5):
        raise ConfigError(
            f"wrong is {wrong}, ambiguous {ambiguous}, smooth {smooth}; expected shares that sum to at most 1, "
            "and smooth below 0.5"
        )
    mu, n = strengths / (strengths.std() or 1.0), len(strengths)
    rank = np.empty(n, dtype=np.int64)
    rank[np.argsort(strengths, kind="stable")] = np.arange(n)
    bottom = (rank < round(wrong * n)) & (mu < 0)
    unsure = (rank >= round(wrong * n)) & (rank < round((wrong + ambiguous) * n))
    p, margin, weight = np.ones(n), np.maximum(mu, 0.0), np.ones(n)
    if variant != "margin":
        p[unsure] = 1 - smooth
        weight[unsure & drop_ambiguous] = 0.0
    if variant in ("flip", "flip_margin"):
        p[bottom], margin[bottom] = 0.0, -mu[bottom]
    elif variant == "soft_margin":
        p[bottom] = sigma(mu[bottom])
    return Relabelled(p, np.zeros(n) if variant == "flip" else margin, weight)


def relabel_preferences(
    preferences: Sequence[Preference], deltas: Any, variant: Variant = "soft_margin", **options: Any
) -> list[Preference]:
    """The pairs with labels and margins by strength. Pairs of weight 0 are dropped. Tied labels do not change.

    `deltas` are score(a) - score(b), [models, pairs]. A label that was a share q of votes becomes p q + (1-p)(1-q).
    """
    side = np.sign([p.p_a - 0.5 for p in preferences])
    decided = np.flatnonzero(side)
    if not len(decided):
        return list(preferences)
    d = np.asarray(deltas, dtype=np.float64)
    if d.ndim != 2 or d.shape[1] != len(preferences):
        raise DataError(f"score differences have shape {d.shape}; expected [models, {len(preferences)}]")
    new = relabel(strength(d[:, decided] * side[decided]), variant, **options)
    rows = iter(zip(new.p.tolist(), new.margin.tolist(), new.weight.tolist(), strict=True))
    relabelled = []
    for old, tied in zip(preferences, side == 0, strict=True):
        p, margin, weight = (0.0, 0.0, 0.0) if tied else next(rows)
        if tied:
            relabelled.append(old)
        elif weight > 0:
            p_a = p * old.p_a + (1 - p) * (1 - old.p_a)
            fields = {"margin": margin, "weight": old.weight * weight, "subset": old.subset}
            relabelled.append(Preference.make(old.messages, old.a, old.b, p_a, **fields))
    return relabelled


def fit_temperature(delta: Any, p_a: Any) -> float:
    """T > 0 for which sigma(delta / T) has the least cross-entropy to the labels (Guo et al., arXiv:1706.04599).

    Labels are shrunk towards 1/2 as by one more right and one more wrong pair (Platt 1999), so that pairs in perfect
    order have a temperature too. NaN is left out. Raises DataError if the scores agree with the labels no better than
    chance: then no temperature makes them probabilities.
    """
    d, label = np.asarray(delta, dtype=np.float64), np.asarray(p_a, dtype=np.float64)
    d, label = d[~np.isnan(d)], label[~np.isnan(d)]
    target = (label * len(d) + 1) / (len(d) + 2)

    def slope(inverse: float) -> float:
        return float(d @ (sigma(inverse * d) - target))

    if not len(d) or slope(0.0) >= 0:
        raise DataError(
            f"the scores of {len(d)} labelled pairs do not agree with the labels; expected a judge above chance"
        )
    low, high = 0.0, 1.0 / float(np.abs(d).max())
    while slope(high) < 0:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 2 / (low + high)


def answer_probabilities(scores: Any, temperature: float, centre: float) -> Array:
    """sigma((score - centre) / temperature) of each answer of a pair, [pairs, 2].

    `centre` is the mean score on labelled pairs. A Bradley-Terry model may shift by prompt, so only a model trained
    with centering has a centre that means the same everywhere.
    """
    return sigma((np.asarray(scores, dtype=np.float64) - centre) / temperature)


def self_evolved(p: Any, lo: float = 0.45, hi: float = 0.55, gap: float = 0.3) -> npt.NDArray[np.int64]:
    """Self-evolved labels (SER, arXiv:2411.00418): 1 where a is better, -1 where b is, 0: the pair stays unlabelled.

    a is better if p_a > hi and p_b < lo, or p_a - p_b > gap; b in the mirrored case. `p` [pairs, 2] are the answers'
    own probabilities (`answer_probabilities`); NaN stays unlabelled. The defaults are those of the authors' script.
    Raises ConfigError unless 0 <= lo <= hi <= 1 and gap >= 0.
    """
    if not 0 <= lo <= hi <= 1 or gap < 0:
        raise ConfigError(f"lo is {lo}, hi {hi}, gap {gap}; expected 0 <= lo <= hi <= 1 and gap >= 0")
    a, b = np.asarray(p, dtype=np.float64).T
    a_better = ((a > hi) & (b < lo)) | (a - b > gap)
    b_better = ((b > hi) & (a < lo)) | (b - a > gap)
    return np.asarray(a_better.astype(np.int64) - b_better.astype(np.int64))


def evolve(
    unlabelled: Sequence[Preference], p: Any, lo: float, hi: float, gap: float
) -> tuple[list[Preference], list[Preference]]:
    """(pairs with the label of `self_evolved`, pairs that stay unlabelled). Old labels are ignored."""
    labelled: list[Preference] = []
    rest: list[Preference] = []
    for old, verdict in zip(unlabelled, self_evolved(p, lo, hi, gap), strict=True):
        if verdict:
            label = float(verdict > 0)
            labelled.append(Preference.make(old.messages, old.a, old.b, label, weight=old.weight, subset=old.subset))
        else:
            rest.append(old)
    return labelled, rest


def stopped_improving(accuracies: Sequence[float]) -> bool:
    """Whether to stop learning from a model's own labels: the last round is no better than the best one before it.

    `accuracies`, the seed model's first, are on one fixed set of human labels that no round learns from, because a
    model agrees ever more with its own labels.
    """
    return len(accuracies) > 1 and accuracies[-1] <= max(accuracies[:-1])
