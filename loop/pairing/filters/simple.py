"""Filters that look at one pair or one prompt at a time. Each returns one verdict per row, in order."""

from collections.abc import Sequence
from math import inf

from sparring.loop.pairing.types import Candidates, Choice, Dropped, Row
from sparring.loop.pairing.values import band, number
from sparring.loop.traits import filter


@filter(pairs=True, scores=True)
def margin(rows: Sequence[Row], *, low: float = 0.0, high: float | None = None) -> list[Row | Dropped]:
    """Keep pairs with a score difference in [low, high]."""
    top = band(low, high)
    return [_within(row, "margin", choice_of(row).margin, low, top) for row in rows]


@filter(scores=True)
def pass_rate(rows: Sequence[Row], *, low: float = 0.2, high: float = 0.8, at: float = 1.0) -> list[Row | Dropped]:
    """Keep prompts of moderate difficulty: the share of their scored answers that reach `at` is in [low, high].

    Moderate prompts generalise better in arXiv:2412.15282. The band of 0.2 to 0.8 is our reading of the paper.
    """
    band(low, high, 0, 1)
    number("at", at)
    return [_within(row, "pass rate", _passed(row.candidates, at), low, high) for row in rows]


@filter(pairs=True)
def length(rows: Sequence[Row], *, ratio: float = 2.0) -> list[Row | Dropped]:
    """Keep pairs whose longer answer has at most `ratio` times the tokens of the shorter one, against length bias."""
    number("ratio", ratio, 1)
    return [_within(row, "length ratio", _length_ratio(choice_of(row)), 1, ratio) for row in rows]


def choice_of(row: Row) -> Choice:
    assert isinstance(row.item, Choice), "check_pairing allows this filter for pairs only"
    return row.item


def _within(row: Row, what: str, value: float, low: float, high: float) -> Row | Dropped:
    return row if low <= value <= high else Dropped(f"{what} {value:.4g}, expected {_band(low, high)}")


def _band(low: float, high: float) -> str:
    return f"{low:g} or more" if high == inf else f"{low:g} to {high:g}"


def _passed(candidates: Candidates, at: float) -> float:
    scored = candidates.scored
    return sum(s.score >= at for s in scored) / len(scored)


def _length_ratio(choice: Choice) -> float:
    shorter, longer = sorted(len(s.completion.token_ids) for s in (choice.chosen, choice.rejected))
    return longer / shorter if shorter else inf
