"""Aggregators: one score from the scores of several reward models, each standardised first. Pure.

A Bradley-Terry score is defined up to a shift, and members differ in scale. Without a common scale, the worst case and
the variance only show which member scores lowest. The raw score of every member stays in the store.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import sqrt
from statistics import fmean, pvariance

from sparring.loop.errors import ConfigError
from sparring.loop.judgements import Scores
from sparring.loop.options import check_options, nearest
from sparring.loop.types import Judgement

Scale = tuple[float, float]  # mean and standard deviation of a member's scores on a fixed set


def mean(scores: Sequence[float]) -> float:
    """The mean over members. It still over-optimises under label noise (arXiv:2310.02743, section 5)."""
    return fmean(scores)


def worst(scores: Sequence[float]) -> float:
    """The lowest member: worst-case optimisation, WCO (arXiv:2310.02743)."""
    return min(scores)


def uncertainty(scores: Sequence[float], *, lam: float = 0.5) -> float:
    """mean - lam * variance: uncertainty-weighted optimisation, UWO (arXiv:2310.02743).

    The variance divides by the number of members, and lam is 0.5, as in the authors' best-of-n code.
    """
    return fmean(scores) - lam * pvariance(scores)


def lower_bound(scores: Sequence[float], *, beta: float = 1.0) -> float:
    """mean - beta * standard deviation: the lower confidence bound (arXiv:2401.16635)."""
    return fmean(scores) - beta * sqrt(pvariance(scores))


AGGREGATORS: Mapping[str, Callable[..., float]] = {f.__name__: f for f in (mean, worst, uncertainty, lower_bound)}


def check_aggregator(kind: str, options: Mapping[str, float]) -> None:
    """Raise ConfigError for an aggregator or an option that does not exist."""
    if kind not in AGGREGATORS:
        names = ", ".join(AGGREGATORS)
        raise ConfigError(f"there is no aggregator {kind!r}{nearest(kind, AGGREGATORS)}; choose one of {names}")
    check_options("aggregator", kind, AGGREGATORS[kind], options, skip=1)


def members(judgements: Iterable[Judgement], kind: str, scales: Mapping[str, Scale], **options: float) -> Scores:
    """The scores of an ensemble: each member's score v becomes (v - mean) / std, then the members are aggregated.

    `scales` names the members. A completion without an answer from every member has no score, because the lowest score
    or the spread of the other members would be a different, milder measure. Several judgements by one member
    (principles) count as their mean. Raises ConfigError for an unknown aggregator, option or member, or a std of 0.
    """
    check_aggregator(kind, options)
    aggregate = AGGREGATORS[kind]
    by_completion = standardised(judgements, scales)
    return Scores({completion: aggregate(scores, **options) for completion, scores in by_completion.items()})


def standardised(judgements: Iterable[Judgement], scales: Mapping[str, Scale]) -> dict[str, list[float]]:
    """(v - mean) / std of each member's score v, in the order of `scales`, per completion that every member scored.

    Raises ConfigError for an unknown member or a std of 0.
    """
    for member, (_, std) in scales.items():
        if not std > 0:
            raise ConfigError(f"member {member!r} has standard deviation {std!r}; expected a number above 0")
    values: dict[str, dict[str, list[float | None]]] = defaultdict(lambda: defaultdict(list))
    for j in judgements:
        if j.rival_id is None:
            if j.member not in scales:
                raise ConfigError(f"judge {j.judge} has a member {j.member!r}; expected one of {sorted(scales)}")
            values[j.completion_id][j.member].append(j.value)
    scaled = {completion: _one_scale(by_member, scales) for completion, by_member in values.items()}
    return {completion: scores for completion, scores in scaled.items() if scores is not None}


def _one_scale(values: Mapping[str, Sequence[float | None]], scales: Mapping[str, Scale]) -> list[float] | None:
    """One number per member, in the order of `scales`; None if a member gave no answer."""
    scores = []
    for member, (middle, std) in scales.items():
        answers = [v for v in values.get(member, ()) if v is not None]
        if not answers or len(answers) < len(values[member]):
            return None
        scores.append((fmean(answers) - middle) / std)
    return scores
