"""Every filter of pairs and examples, with numbers worked by hand, and what the store is told of drops."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparring.loop.errors import ConfigError
from sparring.loop.pairing import FILTERS, Dropped, Row
from sparring.loop.pairing.builders.ranking import all_margin
from sparring.loop.pairing.checks import check_pairing
from sparring.loop.pairing.filters.dedup import dedup, similarity
from sparring.loop.pairing.filters.simple import length, margin, pass_rate
from sparring.loop.pairing.filters.strength import strength
from sparring.loop.pairing.pipeline import pairing
from sparring.loop.types import Example, Pair, PromptOutcome
from tests.helpers.candidates import Answer, gathered, seen
from tests.helpers.experience import ROUND

FOUR = (Answer("a", 0.5), Answer("b", 3.0), Answer("c", 1.0), Answer("d", 2.0))


def rows_of(*answers: Answer, prompt: str = "p", **options: Any) -> list[Row]:
    candidates = seen(*answers, prompt=prompt)
    found = all_margin(candidates, **options)
    assert isinstance(found, list)
    return [Row(choice, candidates) for choice in found]


def verdicts(found: Sequence[Row | Dropped]) -> list[str]:
    """'b>a' for a pair that is kept, else why it is not."""
    return [
        v.why if isinstance(v, Dropped) else f"{v.item.chosen.completion.text}>{v.item.rejected.completion.text}"
        for v in found
    ]


def play(answers: Mapping[str, Sequence[Answer]], kind: str = "all_margin", **options: Any) -> list[Any]:
    return list(pairing(kind, **options)(ROUND, gathered(answers)))


def outcomes(records: Sequence[Any]) -> list[tuple[str, str]]:
    return [(r.outcome, r.reason) for r in records if isinstance(r, PromptOutcome)]


def test_the_margin_band_has_both_its_ends() -> None:
    rows = rows_of(*FOUR)  # margins 2.5, 2, 1.5, 1, 1, 0.5
    assert verdicts(margin(rows, low=1.0, high=2.0)) == [
        "margin 2.5, expected 1 to 2", "b>c", "d>a", "b>d", "d>c", "margin 0.5, expected 1 to 2",
    ]  # fmt: skip
    assert verdicts(margin(rows, low=2.5))[:2] == ["b>a", "margin 2, expected 2.5 or more"]


@pytest.mark.parametrize(
    ("options", "kept", "why"),
    [
        ({}, True, ""),  # of 0.5, 3, 1, 2 three pass at 1: 0.75
        ({"at": 3.0}, True, ""),  # 0.25
        ({"at": 0.5}, False, "pass rate 1, expected 0.2 to 0.8"),
        ({"at": 3.5}, False, "pass rate 0, expected 0.2 to 0.8"),
        ({"low": 0.75}, True, ""),
        ({"high": 0.74}, False, "pass rate 0.75, expected 0.2 to 0.74"),
    ],
)
def test_the_pass_rate_of_a_prompt(options: dict[str, Any], kept: bool, why: str) -> None:
    rows = rows_of(*FOUR, Answer("e"))  # unscored: it neither passes nor fails
    found = pass_rate(rows, **options)
    assert found == rows if kept else verdicts(found) == [why] * 6


def test_the_pass_rate_sees_full_answers_only() -> None:
    rows = rows_of(Answer("p", 5.0), Answer("a", 1.0, parent=0), Answer("b", 0.0, parent=0))
    assert pass_rate(rows, low=0.5, high=0.5) == rows


def test_length_is_in_tokens_and_goes_both_ways() -> None:
    rows = rows_of(Answer("a", 1.0, tokens=[1, 2, 3, 4]), Answer("b", 0.0, tokens=[5, 6]))
    rows += rows_of(Answer("c", 0.0, tokens=[1, 2, 3, 4, 5]), Answer("d", 1.0, tokens=[6, 7]))
    rows += rows_of(Answer("e", 0.0, tokens=[1]), Answer("f", 1.0, tokens=[]))
    assert verdicts(length(rows)) == ["a>b", "length ratio 2.5, expected 1 to 2", "length ratio inf, expected 1 to 2"]
    assert verdicts(length(rows, ratio=3))[:2] == ["a>b", "d>c"]


def test_dedup_drops_pairs_of_nearly_equal_answers() -> None:
    ten = list(range(10))
    rows = rows_of(Answer("a", 1.0, tokens=ten), Answer("b", 0.0, tokens=[*ten[:9], 99]))  # 2 * 9 / 20 = 0.9
    assert verdicts(dedup(rows)) == ["similarity of its answers 0.9, expected less than 0.9"]
    assert verdicts(dedup(rows, at=0.91)) == ["a>b"]


def test_dedup_keeps_the_first_of_near_duplicates_in_the_round() -> None:
    ten = list(range(10))
    rows = rows_of(Answer("a", 1.0, tokens=ten), Answer("x", 0.0, tokens=[50]), prompt="p")
    rows += rows_of(Answer("b", 1.0, tokens=[*ten[:9], 99]), Answer("x", 0.0, tokens=[50]), prompt="q")
    rows += rows_of(Answer("c", 1.0, tokens=[*ten[:8], 98, 99]), Answer("x", 0.0, tokens=[50]), prompt="r")
    assert verdicts(dedup(rows)) == ["a>x", "similarity of chosen to an earlier one 0.9, expected less than 0.9", "c>x"]
    # c is 0.8 like a, and 0.9 like b; but b did not stay.
    assert verdicts(dedup(rows[1:])) == ["b>x", "similarity of chosen to an earlier one 0.9, expected less than 0.9"]
    assert verdicts(dedup(rows, at=1)) == ["a>x", "b>x", "c>x"]


def test_a_chosen_answer_in_two_pairs_is_no_duplicate_of_itself_but_its_copy_is() -> None:
    rows = rows_of(Answer("a", 2.0, tokens=[1, 2]), Answer("b", 1.0, tokens=[3]), Answer("c", 0.0, tokens=[4]))
    assert verdicts(dedup(rows)) == ["a>c", "a>b", "b>c"]
    copy = rows_of(Answer("a", 2.0, tokens=[1, 2]), Answer("c", 0.0, tokens=[4]), prompt="q")
    assert verdicts(dedup([*rows, *copy]))[3] == "similarity of chosen to an earlier one 1, expected less than 0.9"


def test_what_is_dropped_for_its_own_sides_is_no_earlier_one() -> None:
    rows = rows_of(Answer("a", 1.0, tokens=[1, 2]), Answer("b", 0.0, tokens=[1, 2]))
    rows += rows_of(Answer("a", 1.0, tokens=[1, 2]), Answer("c", 0.0, tokens=[9]), prompt="q")
    assert verdicts(dedup(rows))[1] == "a>c"


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9), max_size=9), st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_dedup_finds_every_near_duplicate(texts: list[list[int]], at: float) -> None:
    rows = [
        row
        for i, tokens in enumerate(texts)
        for row in rows_of(Answer("a", 1.0, tokens=tokens), Answer("b", 0.0, tokens=[100 + i]), prompt=f"p{i}")
    ]
    kept: list[Row] = []
    for row in rows:  # each against every one before it that stays
        if all(similarity(k.item.chosen.completion, row.item.chosen.completion) < at for k in kept):
            kept.append(row)
    assert [v for v in dedup(rows, at=at) if isinstance(v, Row)] == kept


# Two pairs of two members. Differences of x: 3, 4, so its scale is sqrt((9 + 16) / 2) = 3.5355; of y: -1, 1, scale 1.
# First pair: 3 / 3.5355 - 1 < 0, though its mean score is higher by 1. Second: 4 / 3.5355 + 1 > 0.
MEMBERS = {
    "p": [Answer("a", {"x": 3.0, "y": 0.0}), Answer("b", {"x": 0.0, "y": 1.0})],
    "q": [Answer("c", {"x": 4.0, "y": 1.0}), Answer("d", {"x": 0.0, "y": 0.0})],
}


def member_rows(answers: Mapping[str, Sequence[Answer]] = MEMBERS) -> list[Row]:
    return [row for prompt, given_ in answers.items() for row in rows_of(*given_, prompt=prompt)]


def test_strength_flips_or_drops_what_the_members_deny() -> None:
    rows = member_rows()
    assert verdicts(rows) == ["a>b", "c>d"]
    assert verdicts(strength(rows)) == ["b>a", "c>d"]
    assert verdicts(strength(rows, negative="drop")) == ["strength -0.07574, expected 0 or more", "c>d"]
    assert strength(rows, negative="keep") == rows
    assert verdicts(strength(rows[:1])) == ["a>b"]  # alone, both members' differences are 1 on their scale


def test_a_flipped_pair_keeps_the_size_of_its_margin() -> None:
    pair, *_ = play(MEMBERS, "best_worst", filters=[{"kind": "strength"}])
    assert (pair.chosen_id, pair.rejected_id, pair.margin, pair.p_chosen) == ("policy/p/1", "policy/p/0", 1.0, 1.0)


def test_soft_labels_are_the_share_of_members_that_agree() -> None:
    members = {
        "p": [
            Answer("a", {"x": 1.0, "y": 1.0, "z": 3.0, "w": 0.0}),
            Answer("b", {"x": 0.0, "y": 0.0, "z": 2.5, "w": 0.0}),
        ],
        "q": [Answer("c", {"x": 1.0, "y": 0.0, "z": 1.0, "w": None}), Answer("d", dict.fromkeys("xyzw", 0.0))],
    }
    rows = member_rows(members)
    p = [v.item.p for v in strength(rows, soft=True) if isinstance(v, Row)]
    assert p == [3.5 / 4, pytest.approx(2.5 / 3)]  # w has no preference in p, and no answer in q
    (flipped, kept) = strength(member_rows(), soft=True)
    assert isinstance(flipped, Row) and isinstance(kept, Row)
    assert (flipped.item.p, kept.item.p) == (0.5, 1.0)  # of x and y only y prefers b
    assert [v.item.p for v in strength(member_rows(), soft=True, negative="keep") if isinstance(v, Row)] == [0.5, 1.0]


def test_soft_labels_of_a_flipped_pair_count_who_denies_it() -> None:
    rows = rows_of(Answer("a", {"x": 0.0, "y": 0.0, "z": 9.0}), Answer("b", {"x": 1.0, "y": 1.0, "z": 0.0}))
    (flipped,) = strength(rows, soft=True)  # -1, -1, 1 on the members' own scales
    assert isinstance(flipped, Row) and verdicts([flipped]) == ["b>a"]
    assert flipped.item.p == pytest.approx(2 / 3)


def test_a_member_that_left_one_principle_open_has_no_say() -> None:
    (row,) = rows_of(Answer("a", {"x": 1.0, "y": 1.0}), Answer("b", {"x": 0.0, "y": 0.0}))
    first = row.candidates.judgements[0]
    told = (*row.candidates.judgements, replace(first, principle="short", value=None))
    found = strength([replace(row, candidates=replace(row.candidates, judgements=told))])
    assert verdicts(found) == ["1 members scored both answers, expected 2 or more"]


def test_strength_needs_two_members_that_scored_both() -> None:
    rows = rows_of(Answer("a", {"x": 1.0, "y": None}), Answer("b", {"x": 0.0, "y": 0.0}))
    assert verdicts(strength(rows)) == ["1 members scored both answers, expected 2 or more"]
    with pytest.raises(ConfigError, match=r"'strength' compares the scores of a judge's members.*this judge has 1"):
        strength(rows_of(*FOUR))
    assert strength([]) == []


def test_equal_scores_of_all_members_are_left_as_they_are() -> None:
    rows = rows_of(Answer("a", {"x": 1.0, "y": 1.0}), Answer("b", {"x": 0.0, "y": 1.0}))
    assert strength(rows, soft=True)[0].item.p == 0.75  # type: ignore[union-attr]


def test_drops_are_counted_in_the_outcome_of_their_prompt() -> None:
    records = play({"p": FOUR, "q": FOUR[:1] + FOUR[2:3], "r": FOUR[:1]}, filters=[{"kind": "margin", "low": 1.0}])
    assert outcomes(records) == [
        ("paired", "1 of 6 pairs dropped by margin"),
        ("filtered", "1 of 1 pairs dropped by margin (margin 0.5, expected 1 or more)"),
        ("abstained", "the judge scored 1 of 1 completions"),
    ]
    assert [r.prompt_id for r in records if isinstance(r, Pair)] == ["p"] * 5


def test_filters_see_what_those_before_them_keep() -> None:
    filters = [{"kind": "margin", "low": 1.0, "high": 2.0}, {"kind": "dedup"}, {"kind": "margin", "low": 1.5}]
    found = play({"p": FOUR, "q": FOUR}, filters=filters)
    assert outcomes(found) == [
        ("paired", "4 of 6 pairs dropped by margin"),
        ("filtered", "2 of 6 pairs dropped by margin, 4 of 6 pairs dropped by dedup "
         "(similarity of chosen to an earlier one 1, expected less than 0.9)"),
    ]  # fmt: skip


def test_examples_are_dropped_with_their_prompt() -> None:
    found = play(
        {"p": FOUR, "q": [Answer("a", 1.0), Answer("b", 2.0)]}, "group", filters=[{"kind": "pass_rate", "at": 1.0}]
    )
    assert [r.prompt_id for r in found if isinstance(r, Example)] == ["p"] * 4
    assert outcomes(found) == [
        ("paired", ""),
        ("filtered", "2 of 2 examples dropped by pass_rate (pass rate 1, expected 0.2 to 0.8)"),
    ]


@pytest.mark.parametrize(
    ("kind", "filters", "message"),
    [
        ("best_worst", [{"kind": "margn"}], "there is no pair filter 'margn' (did you mean 'margin'?); choose one of"),
        ("best_worst", [{"kind": "margin", "lo": 1}], "pair filter 'margin' has no option 'lo' (did you mean 'low'?)"),
        ("best_worst", [{"kind": "margin", "low": 2, "high": 1}], "'margin': low is 2 and high is 1; expected low"),
        ("best_worst", [{"kind": "pass_rate", "high": 80}], "'pass_rate': high is 80; expected a number from 0 to 1"),
        ("best_worst", [{"kind": "dedup", "at": 0}], "'dedup': at is 0; expected a number from 1e-06 to 1"),
        ("best_worst", [{"kind": "length", "ratio": 0.5}], "'length': ratio is 0.5; expected a number of 1 or more"),
        (
            "best_worst",
            [{"kind": "strength", "negative": "swap"}],
            "negative is 'swap'; expected one of flip, drop, keep",
        ),
        ("best_worst", {"kind": "margin"}, "pair.filters is {'kind': 'margin'}; expected a list such as"),
        ("best_worst", ["margin"], "pair.filters is ['margin']; expected a list such as"),
        ("best_worst", "margin", "pair.filters is 'margin'; expected a list such as"),
        ("best_worst", None, "pair.filters is None; expected a list such as"),
        ("best_worst", [{"low": 1}], "expected a list such as [{kind: margin, low: 0.5}]"),
        (
            "group",
            [{"kind": "margin"}],
            "pair filter 'margin' does not go with pair builder 'group': it looks at pairs",
        ),
        ("gold", [{"kind": "pass_rate"}], "does not go with pair builder 'gold': it looks at scores"),
        ("siblings", [{"kind": "dedup"}], "these may be partial"),
        ("siblings", [{"kind": "strength"}], "these may be partial"),
    ],
)
def test_wrong_filters_are_refused_before_anything_is_built(kind: str, filters: Any, message: str) -> None:
    for check in (check_pairing, lambda kind, options: pairing(kind, **options)):
        with pytest.raises(ConfigError) as refused:
            check(kind, {"filters": filters})
        assert message in str(refused.value)


def test_what_a_config_may_say() -> None:
    check_pairing("gold", {"per_prompt": 2, "filters": [{"kind": "dedup", "at": 1}, {"kind": "length", "ratio": 3}]})
    check_pairing("threshold", {"at": 0.5, "filters": [{"kind": "pass_rate"}]})
    check_pairing("best_worst", {"filters": ()})
    assert all(step.make.__doc__ for step in FILTERS.values())


def test_filters_give_a_verdict_on_every_row_in_order() -> None:
    rows = [*member_rows(), *rows_of(*MEMBERS["p"], Answer("z", {"x": 9.0, "y": 0.5}), prompt="r")]
    for name, step in FILTERS.items():
        found = step(rows)
        assert len(found) == len(rows), name
        assert all(v.candidates is row.candidates for v, row in zip(found, rows, strict=True) if isinstance(v, Row))
