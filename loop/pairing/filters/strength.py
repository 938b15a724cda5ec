"""Preference strength: how far each member of an ensemble agrees with a pair that was built on their joint score."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import sqrt
from statistics import fmean
from typing import Literal

from sparring.loop.errors import ConfigError
from sparring.loop.pairing.filters.simple import choice_of
from sparring.loop.pairing.types import Candidates, Choice, Dropped, Row, Scored
from sparring.loop.pairing.values import one_of, switch
from sparring.loop.traits import filter

Differences = Mapping[str, float]  # by member: its score of chosen minus its score of rejected


@filter(pairs=True, scores=True, whole="compares scores of whole answers")
def strength(
    rows: Sequence[Row], *, negative: Literal["flip", "drop", "keep"] = "flip", soft: bool = False
) -> list[Row | Dropped]:
    """Flip or drop pairs whose mean difference of member scores is negative: Secrets of RLHF II, arXiv:2401.06080.

    `flip` swaps chosen and rejected (the margin keeps its size), `drop` leaves the pair out. With `soft`, p of a pair
    becomes the share of members that prefer its chosen answer, where a member without a preference counts half. That is
    our reading of the paper's soft labels. Members differ in scale, so the differences of each member are first divided
    by their root mean square over the round, which is also our reading. A pair that fewer than two members scored is
    dropped. Raises ConfigError if the judge has no members.
    """
    one_of("negative", negative, ("flip", "drop", "keep"))
    switch("soft", soft)
    _refuse_single(rows)
    scaled = _common_scale([_differences(row) for row in rows])
    return [_verdict(row, differences, negative, soft) for row, differences in zip(rows, scaled, strict=True)]


def _verdict(row: Row, differences: Differences, negative: str, soft: bool) -> Row | Dropped:
    if len(differences) < 2:
        return Dropped(f"{len(differences)} members scored both answers, expected 2 or more")
    choice, mean = choice_of(row), fmean(differences.values())
    if mean < 0 and negative == "drop":
        return Dropped(f"strength {mean:.4g}, expected 0 or more")
    if mean < 0 and negative == "flip":
        choice, differences = _flipped(choice), {member: -d for member, d in differences.items()}
    if soft:
        choice = replace(choice, p=fmean((d > 0) + (d == 0) / 2 for d in differences.values()))
    return replace(row, item=choice)


def _flipped(choice: Choice) -> Choice:
    chosen, rejected = choice.chosen, choice.rejected
    chosen_now, rejected_now = Scored(chosen.score, rejected.completion), Scored(rejected.score, chosen.completion)
    return replace(choice, chosen=chosen_now, rejected=rejected_now)


def _refuse_single(rows: Sequence[Row]) -> None:
    members = {j.member for row in rows for j in row.candidates.judgements if j.rival_id is None}
    if rows and len(members) < 2:
        raise ConfigError(
            f"filter 'strength' compares the scores of a judge's members, and this judge has {len(members)}; use an "
            "ensemble or a panel of judges that score single answers, or remove the filter"
        )


def _differences(row: Row) -> Differences:
    choice = choice_of(row)
    chosen = _by_member(row.candidates, choice.chosen.completion.id)
    rejected = _by_member(row.candidates, choice.rejected.completion.id)
    return {member: chosen[member] - rejected[member] for member in sorted(chosen.keys() & rejected.keys())}


def _by_member(candidates: Candidates, completion_id: str) -> Mapping[str, float]:
    """Each member's mean over principles, without the members that gave no answer to one of them."""
    values: dict[str, list[float | None]] = defaultdict(list)
    for j in candidates.judgements:
        if j.completion_id == completion_id and j.rival_id is None:
            values[j.member].append(j.value)
    return {m: fmean(v for v in answers if v is not None) for m, answers in values.items() if None not in answers}


def _common_scale(rows: Sequence[Differences]) -> list[Differences]:
    squares = defaultdict(list)
    for differences in rows:
        for member, d in differences.items():
            squares[member].append(d * d)
    scale = {member: sqrt(fmean(values)) or 1.0 for member, values in squares.items()}  # differences of 0 stay 0
    return [{member: d / scale[member] for member, d in differences.items()} for differences in rows]
