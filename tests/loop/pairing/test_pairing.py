"""From scores to pairs: who is paired with whom, and that no prompt is lost (pitfalls 35 to 37, 39, 43, 44)."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparring.loop.errors import ConfigError
from sparring.loop.judgements import mean_scores
from sparring.loop.pairing.pipeline import pairing
from sparring.loop.types import Pair, PromptOutcome
from tests.helpers.experience import ROUND, completion, experience, judgement

Answers = Sequence[tuple[str, float | None]]


def build(answers: Answers, **options: Any) -> tuple[list[tuple[str, str, float]], PromptOutcome]:
    """The pairs of one prompt as (chosen text, rejected text, margin), and what became of it."""
    records = pairing("best_worst", **options)(ROUND, experience({"p": answers}))
    texts = {f"checkpoint_policy/p/{i}": text for i, (text, _) in enumerate(answers)}
    *pairs, outcome = records
    assert isinstance(outcome, PromptOutcome)
    return [(texts[p.chosen_id], texts[p.rejected_id], p.margin) for p in pairs if isinstance(p, Pair)], outcome


FOUR = [("a", 0.5), ("b", 3.0), ("c", 1.0), ("d", 2.0)]


@pytest.mark.parametrize(
    ("per_prompt", "expected"),
    [
        (1, [("b", "a", 2.5)]),
        (2, [("b", "a", 2.5), ("d", "c", 1.0)]),
        (9, [("b", "a", 2.5), ("d", "c", 1.0)]),  # no pair is turned round to make more
    ],
)
def test_best_with_worst(per_prompt: int, expected: list[tuple[str, str, float]]) -> None:
    pairs, outcome = build(FOUR, per_prompt=per_prompt)
    assert pairs == expected
    assert (outcome.outcome, outcome.reason, outcome.prompt_id) == ("paired", "", "p")


def test_the_middle_of_three_is_not_paired_with_itself() -> None:
    assert build([("a", 1.0), ("b", 2.0), ("c", 3.0)], per_prompt=2)[0] == [("c", "a", 2.0)]


def test_sample_order_decides_among_equal_scores() -> None:
    assert build([("a", 1.0), ("b", 1.0), ("c", 0.0), ("d", 0.0)])[0] == [("a", "c", 1.0)]


def test_a_score_of_zero_is_a_score() -> None:
    assert build([("a", 0.0), ("b", -1.0)])[0] == [("a", "b", 1.0)]


@pytest.mark.parametrize(
    ("answers", "options", "outcome", "reason"),
    [
        ([("a", 1.0), ("b", 1.0)], {}, "tie", "scores from 1 to 1, min_margin 0"),
        ([("a", 0.5), ("b", 1.0)], {"min_margin": 0.5}, "tie", "scores from 0.5 to 1, min_margin 0.5"),
        ([("a", 1.0), ("a", 1.0), ("a", 1.0)], {}, "identical", "all 3 completions have the same text"),
        ([("a", 0.0), ("a", 1.0)], {}, "identical", "all 2 completions have the same text"),
        ([("a", 1.0), ("b", None)], {}, "abstained", "the judge scored 1 of 2 completions"),
        ([("a", None), ("b", None)], {}, "abstained", "the judge scored 0 of 2 completions"),
        ([("a", 1.0)], {}, "abstained", "the judge scored 1 of 1 completions"),
    ],
)
def test_no_pair(answers: Answers, options: dict[str, Any], outcome: str, reason: str) -> None:
    pairs, found = build(answers, **options)
    assert (pairs, found.outcome, found.reason) == ([], outcome, reason)


def test_an_unscored_answer_is_never_paired() -> None:
    # None is not 0: were it, "b" would be the worst.
    assert build([("a", 2.0), ("b", None), ("c", 1.0)])[0] == [("a", "c", 1.0)]


def test_min_margin_is_asked_of_each_pair() -> None:
    assert build(FOUR, per_prompt=2, min_margin=1.0)[0] == [("b", "a", 2.5)]


def test_same_text_is_not_paired_though_the_judge_wavers() -> None:
    pairs, outcome = build([("same", 3.0), ("other", 2.0), ("same", 1.0)])
    assert (pairs, outcome.outcome) == ([], "tie")


def test_a_score_is_the_mean_of_what_the_judge_said() -> None:
    first, second = completion("p", 0, "a"), completion("p", 1, "b")
    said = (
        judgement(first, 1.0, "short"),
        judgement(first, 0.0, "polite"),
        judgement(first, None, "true"),  # no answer does not count as 0
        judgement(first, 1.0, "against", rival=second.id),  # a preference is no score
        judgement(second, None),
    )
    assert mean_scores(said).scores == {first.id: 0.5}


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            "best_wrost",
            {},
            "there is no pair builder 'best_wrost' (did you mean 'best_worst'?); choose one of gold, dataset, "
            "threshold, group, best_worst, best_random, all_margin, contrast, ranked, sql, siblings, or name your own: "
            "./file.py:name",
        ),
        (
            "best_worst",
            {"margin": 1},
            "pair builder 'best_worst' has no option 'margin' (did you mean 'min_margin'?); "
            "it takes per_prompt, min_margin",
        ),
    ],
)
def test_unknown_names_are_refused(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        pairing(kind, **options)
    assert str(refused.value) == message


# Few texts and few scores, so that equal ones are common.
SCORE = st.none() | st.sampled_from([0.0, 0.5, 1.0]) | st.floats(-1e6, 1e6)
ANSWERS = st.lists(st.tuples(st.sampled_from("abcd"), SCORE), max_size=7)


@settings(deadline=None)
@given(st.lists(ANSWERS, max_size=6), st.integers(1, 4), st.floats(0, 2))
def test_conservation(given_answers: list[Answers], per_prompt: int, min_margin: float) -> None:
    gathered = experience({f"p{i}": answers for i, answers in enumerate(given_answers)})
    step = pairing("best_worst", per_prompt=per_prompt, min_margin=min_margin)
    records = step(ROUND, gathered)
    assert records == step(ROUND, gathered)
    assert len({record.id for record in records}) == len(records)

    outcomes = [record for record in records if isinstance(record, PromptOutcome)]
    pairs = [record for record in records if isinstance(record, Pair)]
    assert [o.prompt_id for o in outcomes] == [group.prompt.id for group in gathered.groups]  # one a prompt
    made = Counter(pair.prompt_id for pair in pairs)
    assert made.keys() == {o.prompt_id for o in outcomes if o.outcome == "paired"}
    assert all(o.reason for o in outcomes if o.outcome != "paired")
    assert all(n <= per_prompt for n in made.values())

    known = {c.id: c for group in gathered.groups for c in group.completions}
    score = {j.completion_id: j.value for j in gathered.judgements}
    used = [side for pair in pairs for side in (pair.chosen_id, pair.rejected_id)]
    assert len(set(used)) == len(used)  # never with itself, and no answer twice
    for pair in pairs:
        chosen, rejected = score[pair.chosen_id], score[pair.rejected_id]
        assert chosen is not None and rejected is not None
        assert chosen > rejected and pair.margin == chosen - rejected > min_margin
        assert known[pair.chosen_id].text != known[pair.rejected_id].text
        assert {known[side].prompt_id for side in (pair.chosen_id, pair.rejected_id)} == {pair.prompt_id}
        assert (pair.p_chosen, pair.weight, pair.run, pair.round) == (1.0, 1.0, "run", 3)
