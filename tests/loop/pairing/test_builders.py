"""Every pair builder, with numbers worked by hand."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from sparring.loop.errors import ConfigError
from sparring.loop.judgements import Scores
from sparring.loop.pairing import (
    BUILDERS,
    Candidates,
    Choice,
    Unpaired,
)
from sparring.loop.pairing.builders.dataset_gold import dataset, gold
from sparring.loop.pairing.builders.examples import group, threshold
from sparring.loop.pairing.builders.ranking import all_margin, best_random, best_worst, contrast, ranked
from sparring.loop.pairing.builders.tree import siblings, trust
from sparring.loop.pairing.pipeline import pairing
from sparring.loop.types import Example, Pair, PromptOutcome
from tests.helpers.candidates import Answer, flat, gathered, seen
from tests.helpers.experience import ROUND

FOUR = (Answer("a", 0.5), Answer("b", 3.0), Answer("c", 1.0), Answer("d", 2.0))
ALL_PAIRS = [  # of FOUR, the largest margin first, equal ones in sample order
    ("b", "a", 2.5), ("b", "c", 2.0), ("d", "a", 1.5), ("b", "d", 1.0), ("d", "c", 1.0), ("c", "a", 0.5),
]  # fmt: skip
RANKERS = ("best_worst", "best_random", "all_margin", "contrast", "ranked")
REFERENCE = Answer("r", 1.5, "reference")


def test_all_pairs_with_the_largest_margin_first() -> None:
    assert flat(all_margin(seen(*FOUR))) == ALL_PAIRS
    assert flat(all_margin(seen(*FOUR), per_prompt=2)) == ALL_PAIRS[:2]
    assert flat(all_margin(seen(*FOUR), min_margin=1.0)) == ALL_PAIRS[:3]  # above, not at
    assert flat(all_margin(seen(*FOUR), min_margin=2.5)) == ("tie", "scores from 0.5 to 3, min_margin 2.5")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"mode": "high"}, ("b", "a", 2.5)),
        ({"mode": "low"}, ("c", "a", 0.5)),
        ({"mode": "low", "min_margin": 0.5}, ("d", "c", 1.0)),
    ],
)
def test_contrast(options: dict[str, Any], expected: tuple[str, str, float]) -> None:
    assert flat(contrast(seen(*FOUR), **options)) == [expected]


def test_mixed_contrast_is_high_for_about_half_of_the_prompts_and_low_for_the_others() -> None:
    found = Counter(str(flat(contrast(seen(*FOUR, prompt=f"p{i}"), mode="mixed"))) for i in range(400))
    assert set(found) == {"[('b', 'a', 2.5)]", "[('c', 'a', 0.5)]"}
    assert 160 <= found["[('b', 'a', 2.5)]"] <= 240  # 200 expected, 4 standard deviations are 40


def test_best_random_draws_all_lower_answers_alike() -> None:
    drawn = Counter(str(flat(best_random(seen(*FOUR, prompt=f"p{i}")))) for i in range(600))
    assert set(drawn) == {"[('b', 'a', 2.5)]", "[('b', 'c', 2.0)]", "[('b', 'd', 1.0)]"}
    assert all(154 <= n <= 246 for n in drawn.values())  # 200 expected, 4 standard deviations are 46
    assert len({str(flat(best_random(seen(*FOUR), seed=seed))) for seed in range(20)}) == 3
    assert all(flat(best_random(seen(*FOUR), seed=s, min_margin=2.0)) == [("b", "a", 2.5)] for s in range(9))


def test_best_random_draws_the_same_from_the_same_answers_in_another_order() -> None:
    given = seen(*FOUR, *(Answer(letter, 0.0) for letter in "efgh"))
    turned = Candidates(given.completions[::-1], given.reading)
    assert flat(best_random(given)) == flat(best_random(turned))


def test_the_best_is_not_paired_with_its_equals_nor_with_its_own_text() -> None:
    answers = seen(Answer("a", 1.0), Answer("b", 1.0), Answer("a", 0.0), Answer("c", 0.5))
    for seed in range(9):
        assert flat(best_random(answers, seed=seed)) == [("a", "c", 0.5)]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ((Answer("a", 1.0), Answer("b", 2.0), REFERENCE), ("b", "a", 1.0)),
        ((Answer("a", 1.0), Answer("b", 1.2), REFERENCE), ("r", "a", 0.5)),  # the reference's may be chosen
        ((REFERENCE, Answer("b", 2.0)), ("b", "r", 0.5)),  # XPO: the one against the other
    ],
)
def test_ranked_takes_the_references_sample_into_the_ranking(
    answers: Sequence[Answer], expected: tuple[str, str, float]
) -> None:
    found = ranked(seen(*answers))
    assert flat(found) == [expected]
    assert isinstance(found, list) and found[0].reference_sample.text == "r"


def test_ranked_without_a_sample_of_the_reference_says_what_to_set() -> None:
    with pytest.raises(
        ConfigError, match=r"no sample of the reference among the 4 completions of prompt p; set sample"
    ):
        ranked(seen(*FOUR))
    assert flat(ranked(seen())) == ("abstained", "the judge scored 0 of 0 completions")  # a prompt that failed


def test_ranked_needs_a_verdict_on_the_references_sample() -> None:
    answers = seen(*FOUR, Answer("r", None, "reference"))
    assert flat(ranked(answers)) == ("abstained", "the judge scored none of the 1 samples of the reference")


def test_a_pair_names_the_references_sample() -> None:
    pair, outcome = pairing("ranked")(ROUND, gathered({"p": [*FOUR[:2], REFERENCE]}))
    assert isinstance(pair, Pair) and isinstance(outcome, PromptOutcome)
    assert pair.reference_sample_id == "reference/p/2"
    (plain, _) = pairing("best_worst")(ROUND, gathered({"p": [*FOUR[:2], REFERENCE]}))
    assert isinstance(plain, Pair) and plain.reference_sample_id is None


def test_gold_is_chosen_whatever_the_scores() -> None:
    answers = seen(Answer("gold", 0.0, "dataset"), Answer("a", 9.0), Answer("b"), Answer("r", 5.0, "reference"))
    assert flat(gold(answers)) == [("gold", "a", 1.0)]
    assert flat(gold(answers, per_prompt=5)) == [("gold", "a", 1.0), ("gold", "b", 1.0)]
    (pair, _) = pairing("gold", lambda judged: Scores({}, {("dataset/p/0", "policy/p/1"): 0.0}))(
        ROUND, gathered({"p": [Answer("gold", None, "dataset"), Answer("a")]})
    )
    assert isinstance(pair, Pair)
    assert (pair.chosen_id, pair.p_chosen, pair.margin, pair.builder) == ("dataset/p/0", 1.0, 1.0, "gold")


def test_several_given_answers_take_turns() -> None:
    answers = seen(Answer("x", origin="dataset"), Answer("y", origin="human"), *(Answer(letter) for letter in "abc"))
    assert flat(gold(answers, per_prompt=3)) == [("x", "a", 1.0), ("y", "b", 1.0), ("x", "c", 1.0)]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ((Answer("a"), Answer("b")), ("failed", "0 gold answers, 2 of the policy's own; expected one of each")),
        ((Answer("x", origin="human"),), ("failed", "1 gold answers, 0 of the policy's own; expected one of each")),
        (
            (Answer("x", origin="human"), Answer("x"), Answer("x")),
            ("identical", "all 2 of the policy's own answers have the text of a gold one"),
        ),
    ],
)
def test_no_gold(answers: Sequence[Answer], expected: tuple[str, str]) -> None:
    assert flat(gold(seen(*answers))) == expected


def test_own_answers_that_are_the_given_one_are_passed_over() -> None:
    assert flat(gold(seen(Answer("x", origin="human"), Answer("x"), Answer("y")))) == [("x", "y", 1.0)]


def test_dataset_gives_the_given_answers() -> None:
    answers = seen(Answer("a", 9.0), Answer("x", origin="dataset"), Answer("y", 0.0, "human"))
    assert flat(dataset(answers)) == [("x", "", 1.0), ("y", "", 1.0)]
    assert flat(dataset(seen(*FOUR))) == ("failed", "no gold answer (origin dataset or human)")


def test_threshold_labels_what_lies_outside_the_band() -> None:
    assert flat(threshold(seen(*FOUR), at=2.0)) == [("a", "", 0.0), ("b", "", 1.0), ("c", "", 0.0), ("d", "", 1.0)]
    assert flat(threshold(seen(*FOUR), at=2.0, below=0.5)) == [("a", "", 0.0), ("b", "", 1.0), ("d", "", 1.0)]
    assert flat(threshold(seen(*FOUR), at=4.0, below=0.0)) == ("filtered", "all 4 scores are between below 0 and at 4")
    assert flat(threshold(seen(Answer("a", None), Answer("b", 0.0)), at=0.0)) == [("b", "", 1.0)]  # 0 is a score
    assert flat(threshold(seen(Answer("a")), at=1.0)) == ("abstained", "the judge scored 0 of 1 completions")


def test_group_takes_every_scored_answer_with_its_score() -> None:
    answers = seen(Answer("a", 0.0), Answer("b"), Answer("a", 2.0), Answer("c", 2.0))
    assert flat(group(answers)) == [("a", "", 0.0), ("a", "", 2.0), ("c", "", 2.0)]
    assert flat(group(answers, min_size=4)) == (
        "abstained", "the judge scored 3 of 4 completions; a group needs min_size 4",
    )  # fmt: skip
    one, tied = seen(Answer("a", 1.0)), seen(Answer("a", 1.0), Answer("b", 1.0))
    same = seen(Answer("a", 1.0), Answer("a", 0.0))
    assert flat(group(one)) == ("abstained", "the judge scored 1 of 1 completions; a group needs min_size 2")
    assert flat(group(one, min_size=1)) == ("tie", "all 1 scores are 1")
    assert flat(group(tied)) == ("tie", "all 2 scores are 1")
    assert flat(group(same)) == ("identical", "all 2 scored completions have the same text")
    assert flat(group(one, min_size=1, keep_ties=True)) == [("a", "", 1.0)]
    assert flat(group(tied, keep_ties=True)) == [("a", "", 1.0), ("b", "", 1.0)]
    assert flat(group(same, keep_ties=True)) == [("a", "", 1.0), ("a", "", 0.0)]


def test_examples_are_rows_with_reward_and_an_outcome() -> None:
    found = pairing("group")(ROUND, gathered({"p": FOUR[:2], "q": [Answer("a", 1.0)]}))
    first, second, paired, abstained = found
    assert isinstance(first, Example) and isinstance(second, Example)
    assert (first.prompt_id, first.completion_id, first.reward, first.weight, first.builder) == (
        "p", "policy/p/0", 0.5, 1.0, "group",
    )  # fmt: skip
    assert (second.completion_id, second.reward, second.run, second.round) == ("policy/p/1", 3.0, "run", 3)
    assert isinstance(paired, PromptOutcome) and isinstance(abstained, PromptOutcome)
    assert (paired.outcome, paired.reason, abstained.outcome) == ("paired", "", "abstained")


# The prompt goes on in A or B; A in A1 (full), A2 (full), A3 (full); B in B1 (full) and B2, and that in B21 (full).
TREE = (
    Answer("A"), Answer("B"),
    Answer("A1", 1.0, parent=0), Answer("A2", 0.0, parent=0), Answer("A3", 0.5, parent=0),
    Answer("B1", 0.0, parent=1), Answer("B2", parent=1), Answer("B21", 0.4, parent=6),
)  # fmt: skip


def test_siblings_are_paired_at_every_node_by_the_mean_of_their_leaves() -> None:
    # Values: A = (1 + 0 + 0.5) / 3 = 0.5, B = (0 + 0.4) / 2 = 0.2, B2 = 0.4.
    found = siblings(seen(*TREE))
    assert flat(found) == [("A", "B", pytest.approx(0.3)), ("A1", "A2", 1.0), ("B2", "B1", 0.4)]
    assert isinstance(found, list) and [choice.p for choice in found] == [None, None, None]
    assert flat(siblings(seen(*TREE), min_margin=0.35)) == [("A1", "A2", 1.0), ("B2", "B1", 0.4)]
    assert flat(siblings(seen(*TREE), min_margin=1.0)) == ("tie", "3 families, none above min_margin 1")


def test_visits_tell_how_far_a_pair_is_held_for_true() -> None:
    # A has 3 leaves, B has 2: conf = 1 / (1 + 2/3) = 0.6, p = 1 - 0.4; leaves have one each: conf = 0.5.
    found = siblings(seen(*TREE), smooth_by_visits=True)
    assert isinstance(found, list) and [choice.p for choice in found] == [pytest.approx(0.6), 0.5, 0.5]
    assert [trust(w, loser) for w, loser in ((3, 1), (1, 3), (1, 0), (0, 0))] == [0.75, 0.5, 1.0, 1.0]
    p = [
        r.p_chosen for r in pairing("siblings", smooth_by_visits=True)(ROUND, gathered({"p": TREE})) if type(r) is Pair
    ]
    assert p == [pytest.approx(0.6), 0.5, 0.5]


def test_leaves_without_a_verdict_do_not_count() -> None:
    # A3 silent: A = 0.5 over 2 visits. B1 silent: B = 0.4 over 1, and B2 has no scored sibling.
    silent = [Answer(a.text, None if a.text in ("A3", "B1") else a.score, parent=a.parent) for a in TREE]
    found = siblings(seen(*silent), smooth_by_visits=True)
    assert flat(found) == [("A", "B", pytest.approx(0.1)), ("A1", "A2", 1.0)]
    assert isinstance(found, list) and found[0].p == pytest.approx(2 / 3)  # conf = 1 / (1 + 1/2)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (
            [Answer("A"), Answer("A1", parent=0), Answer("A2", 1.0, parent=0)],
            ("abstained", "no two siblings are scored: the judge scored 1 of 2 full answers"),
        ),
        (
            [Answer("A", 1.0), Answer("r", 0.0, "reference"), Answer("x", 0.0, "dataset")],  # of another tree
            ("abstained", "no two siblings are scored: the judge scored 1 of 1 full answers"),
        ),
        (
            [Answer("A"), Answer("A1", 0.0, parent=0), Answer("A1", 1.0, parent=0)],
            ("identical", "in all 1 families the siblings have the same text"),
        ),
        (
            [Answer("A1", 0.0), Answer("A2", 0.5), Answer("A1", 1.0)],
            ("tie", "1 families, none above min_margin 0"),
        ),
        ([], ("abstained", "no two siblings are scored: the judge scored 0 of 0 full answers")),
    ],
)
def test_no_siblings(answers: Sequence[Answer], expected: tuple[str, str]) -> None:
    assert flat(siblings(seen(*answers))) == expected


def test_only_siblings_pairs_partial_answers() -> None:
    # A judge that scores partial answers, too, changes nothing: best and worst of all would be A and B.
    tree = [Answer("A", 9.0), Answer("B", -9.0), *TREE[2:6], Answer("B2", -8.0, parent=1), TREE[7]]
    assert flat(best_worst(seen(*tree))) == [("A1", "A2", 1.0)]
    assert flat(siblings(seen(*tree))) == flat(siblings(seen(*TREE)))
    given = [
        Answer("x", origin="dataset"),
        Answer("x1", origin="dataset", parent=0),
        Answer("a"),
        Answer("ab", parent=2),
    ]
    assert flat(gold(seen(*given))) == [("x1", "ab", 1.0)]
    assert flat(dataset(seen(*given))) == [("x1", "", 1.0)]
    alike = [Answer("A"), Answer("A1", 0.0, parent=0), Answer("A1", None, parent=0)]
    assert flat(best_worst(seen(*alike))) == ("identical", "all 2 completions have the same text")
    for kind, options in (("threshold", {"at": 1.0}), ("group", {})):
        assert len(flat(BUILDERS[kind](seen(*tree), **options))) == 5


@pytest.mark.parametrize("kind", RANKERS)
@pytest.mark.parametrize(
    ("scores", "texts", "outcome"),
    [
        ([1.0, 1.0, 1.0], "abc", "tie"),
        ([0.0, 1.0, 2.0], "aaa", "identical"),
        ([None, None, None], "aaa", "identical"),
        ([0.0, 1.0, None], "aab", "identical"),
        ([None, 1.0, None], "abc", "abstained"),
        ([1.0], "a", "abstained"),
        ([None], "a", "abstained"),
    ],
)
def test_rankers_agree_on_when_there_is_no_pair(
    kind: str, scores: Sequence[float | None], texts: str, outcome: str
) -> None:
    answers = [Answer(text, score, "reference") for text, score in zip(texts, scores, strict=True)]
    found = flat(BUILDERS[kind](seen(*answers)))
    assert found[0] == outcome and found[1]


@pytest.mark.parametrize("kind", RANKERS)
def test_rankers_heed_the_judges_own_duel(kind: str) -> None:
    duel = ("policy/p/1", "reference/p/0")
    gathered_ = gathered({"p": [Answer("r", 0.0, "reference"), Answer("a", 1.0)]})
    for p, outcome, p_chosen in ((0.8, "paired", [0.8]), (0.5, "tie", []), (0.2, "tie", [])):
        found = pairing(kind, lambda judged, p=p: Scores({"reference/p/0": 0.0, "policy/p/1": 1.0}, {duel: p}))(
            ROUND, gathered_
        )
        assert isinstance(found[-1], PromptOutcome) and found[-1].outcome == outcome
        assert [r.p_chosen for r in found if isinstance(r, Pair)] == p_chosen


def test_pairs_that_lose_their_duel_are_counted() -> None:
    ids = {letter: f"policy/p/{i}" for i, letter in enumerate("abcd")}
    scores = {ids[a.text]: a.score for a in FOUR if isinstance(a.score, float)}
    duels = {(ids["b"], ids["a"]): 0.4, (ids["d"], ids["c"]): 0.7}
    pair, outcome = pairing("best_worst", lambda judged: Scores(scores, duels), per_prompt=2)(
        ROUND, gathered({"p": FOUR})
    )
    assert isinstance(pair, Pair) and isinstance(outcome, PromptOutcome)
    assert (pair.chosen_id, pair.p_chosen) == (ids["d"], 0.7)
    assert (outcome.outcome, outcome.reason) == ("paired", "1 of 2 pairs not preferred by the judge's own duels")


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("contrast", {"mode": "hgih"}, "pair builder 'contrast': mode is 'hgih'; expected one of high, low, mixed"),
        ("best_worst", {"per_prompt": 0}, "'best_worst': per_prompt is 0; expected a whole number of 1 or more"),
        ("best_worst", {"per_prompt": 1.5}, "per_prompt is 1.5; expected a whole number of 1 or more"),
        ("all_margin", {"min_margin": -1}, "min_margin is -1; expected a number of 0 or more"),
        ("all_margin", {"min_margin": "big"}, "min_margin is 'big'; expected a number of 0 or more"),
        ("best_random", {"seed": True}, "seed is True; expected a whole number of 0 or more"),
        ("threshold", {}, "pair builder 'threshold' needs the option 'at'"),
        ("threshold", {"at": 1, "below": 1}, "below is 1 and at is 1; expected below to be less than at"),
        ("threshold", {"at": float("nan")}, "at is nan; expected a number"),
        ("group", {"keep_ties": "no"}, "keep_ties is 'no'; expected true or false"),
        ("dataset", {"per_prompt": 1}, "pair builder 'dataset' has no option 'per_prompt'; it takes none"),
        ("sibling", {}, "there is no pair builder 'sibling' (did you mean 'siblings'?); choose one of "),
    ],
)
def test_wrong_values_are_refused_before_anything_is_built(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        pairing(kind, **options)
    assert message in str(refused.value)


def test_every_builder_says_its_source_or_its_rule_and_is_of_one_sort() -> None:
    assert all(builder.make.__doc__ for builder in BUILDERS.values())
    assert {"threshold", "group", "dataset", "gold", *RANKERS, "siblings", "sql"} == set(BUILDERS)
    everything = [*TREE, REFERENCE, Answer("x", 0.3, "dataset")]
    needed: dict[str, dict[str, Any]] = {"threshold": {"at": 0.5}, "sql": {"query": "SELECT 1"}}
    for kind, builder in BUILDERS.items():
        found = builder(seen(*everything), **needed.get(kind, {}))
        if kind == "sql":  # nobody asked
            assert isinstance(found, Unpaired) and found.outcome == "filtered"
            continue
        assert all(isinstance(item, Choice) != (builder.traits.gives == "examples") for item in found), kind
