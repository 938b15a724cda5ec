"""Which two answers to compare next, from the scores of an ensemble's members. Pure: draws are by a hash.

Contextual duelling bandits with an ensemble as posterior, as in SEA (arXiv:2411.01493). `scores` has one row per
answer and one column per member, two or more of each, all on one scale. The first of equal values counts.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from statistics import pvariance

from sparring.loop.types import derive_seed

Scores = Sequence[Sequence[float]]
Choose = Callable[[Scores, int], tuple[int, int]]


def thompson(scores: Scores, seed: int) -> tuple[int, int]:
    """The best answer to one random member, and the best to another that prefers a different one (EnnEETS).

    If all members prefer the same answer, the second is the runner-up of the first member drawn.
    """
    members = _drawn(scores, seed)
    first = _best(scores, members[0])
    for member in members[1:]:
        if (second := _best(scores, member)) != first:
            return first, second
    return first, _best(scores, members[0], but=first)


def uncertainty(scores: Scores, seed: int) -> tuple[int, int]:
    """The two answers whose difference in score has the highest variance over the members (EnnUncertainty)."""
    return max(combinations(range(len(scores)), 2), key=lambda pair: _variance(scores, *pair))


def best_vs_uncertain(scores: Scores, seed: int) -> tuple[int, int]:
    """The best answer to one random member, and the one whose difference from it varies most (EnnBAITS)."""
    first = _best(scores, _drawn(scores, seed)[0])
    return first, max((i for i in range(len(scores)) if i != first), key=lambda i: _variance(scores, first, i))


CHOICES: Mapping[str, Choose] = {
    "thompson": thompson,
    "uncertainty": uncertainty,
    "best_vs_uncertain": best_vs_uncertain,
}


def _drawn(scores: Scores, seed: int) -> list[int]:
    """The members in a random order."""
    return sorted(range(len(scores[0])), key=lambda member: derive_seed(seed, member))


def _best(scores: Scores, member: int, but: int | None = None) -> int:
    return max((i for i in range(len(scores)) if i != but), key=lambda i: scores[i][member])


def _variance(scores: Scores, i: int, j: int) -> float:
    return pvariance([a - b for a, b in zip(scores[i], scores[j], strict=True)])
