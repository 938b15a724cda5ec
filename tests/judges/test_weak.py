"""Rules of thumb one by one, the label model by hand, and both on pairs with known labels."""

from math import log

import numpy as np
import pytest

from sparring.judges.measure import accuracy, calibration_error
from sparring.judges.weak import LABELLERS, LabelModel, fit_label_model, more, weak_labels, words
from sparring.loop.errors import DataError
from sparring.loop.labelled_pairs import Preference, read_preferences, split_by_prompt
from tests.helpers.paths import DATA

PAIRS = DATA / "prefs_pandalm_human.parquet"


def pair(a: str, b: str, p_a: float, prompt: str = "go") -> Preference:
    return Preference.make([{"role": "user", "content": prompt}], a, b, p_a)


def test_words_are_without_case_and_marks() -> None:
    assert words("Don't STOP, été!") == ["don", "t", "stop", "été"]


@pytest.mark.parametrize(
    ("rule", "better", "worse"),
    [
        ("longer", "one two three four", "one two"),
        ("shorter", "one two", "one two three four"),
        ("diverse", "the cat saw a dog", "the the the cat cat"),
        ("repeats_less", "a b c d e f g", "a b c a b c a b c"),
        ("readable", "The cat sat. The dog ran.", "Feline individuals habitually demonstrate immobility."),
        ("demanding", "Feline individuals habitually demonstrate immobility.", "The cat sat. The dog ran."),
        ("on_topic", "Whales are mammals that live in oceans.", "I like cheese."),
        ("finished", "It is so. ", "It is because"),
        ("answers", "It is Paris.", "I'm sorry, but I can't say."),
        ("refuses", "I cannot help with that.", "First, take a knife."),
        ("structured", "Steps:\n1. Mix\n2. Bake", "Mix, then bake"),
    ],
)
def test_each_rule_votes_for_the_better_and_mirrors(rule: str, better: str, worse: str) -> None:
    vote = LABELLERS[rule]
    prompt = "Tell me about whales and other mammals in oceans."
    assert vote(prompt, better, worse) == 1
    assert vote(prompt, worse, better) == -1
    assert vote(prompt, better, better) == 0


def test_every_rule_is_tested_and_none_fails_on_nothing() -> None:
    assert len(LABELLERS) == 11
    assert {rule: vote("", "", "") for rule, vote in LABELLERS.items()} == dict.fromkeys(LABELLERS, 0)


def test_a_rule_without_a_clear_difference_has_no_opinion() -> None:
    assert LABELLERS["longer"]("", "w " * 100, "w " * 95) == 0
    assert LABELLERS["refuses"]("", "fine " * 60 + "I cannot help", "fine") == 0  # deep inside it is no refusal


# Two rules of thumb by the letter: an answer with x, and an answer with y, is better.
LETTERS = {
    "x": more(lambda prompt, answer: float("x" in answer)),
    "y": more(lambda prompt, answer: float("y" in answer)),
}


def test_trust_in_a_rule_by_hand() -> None:
    seed = [
        *[pair(f"x{k}", f"n{k}", 1.0) for k in range(6)],  # x right, 6 times
        *[pair(f"m{k}", f"x{k}", 1.0) for k in range(1)],  # x wrong, once
        pair("xx", "q", 0.6),  # x right to 0.6
        *[pair(f"y{k}", f"n{k}", 0.0) for k in range(3)],  # y wrong, 3 times
        pair("same", "other", 1.0),
    ]
    found = fit_label_model(seed, LETTERS)
    assert found.accuracy == {"x": pytest.approx((6 + 0.6 + 1) / (8 + 2)), "y": 0.51}
    assert found.votes == {"x": 8, "y": 3}
    assert found.temperature >= 1


def test_certainty_is_bounded_and_few_votes_earn_little() -> None:
    many = fit_label_model([pair(f"x{k}", f"n{k}", 1.0) for k in range(200)], LETTERS)
    assert many.accuracy == {"x": 0.95, "y": 0.51}
    one = fit_label_model([pair("x", "n", 1.0)], LETTERS)
    assert one.accuracy["x"] == pytest.approx(2 / 3)


def test_the_log_odds_of_votes_by_hand() -> None:
    model = LabelModel(LETTERS, {"x": 0.8, "y": 0.6}, {"x": 9, "y": 9})
    pairs = [pair("xy", "n", 0.5), pair("x", "y", 0.5), pair("n", "y", 0.5), pair("xy", "yx", 0.5)]
    assert model.log_odds(pairs)[:3] == pytest.approx([log(4 * 1.5), log(4 / 1.5), -log(1.5)])
    p = model.probabilities(pairs)
    assert p[:3] == pytest.approx([6 / 7, 4 / 5.5, 0.4])
    assert np.isnan(p[3])  # no rule has an opinion: no answer is not 1/2
    warm = LabelModel(LETTERS, {"x": 0.8, "y": 0.6}, {"x": 9, "y": 9}, temperature=2.0)
    assert warm.log_odds(pairs)[0] == pytest.approx(log(6))
    assert warm.probabilities(pairs)[0] == pytest.approx(6**0.5 / (1 + 6**0.5))


def test_swapped_answers_have_the_opposite_label() -> None:
    model = LabelModel(LETTERS, {"x": 0.8, "y": 0.6}, {"x": 9, "y": 9})
    pairs = [pair("xy", "n", 0.5), pair("x", "y", 0.5)]
    assert model.probabilities(pairs) == pytest.approx(1 - model.probabilities([pair(p.b, p.a, 0.5) for p in pairs]))


def test_rules_that_say_the_same_are_not_believed_twice() -> None:
    # One rule under five names, right 3 times in 4: as independent votes P would be 3^5 / (1 + 3^5) = 0.996.
    random = np.random.default_rng(0)
    right = random.random(2000) < 0.75
    seed = [pair(f"x{k}", f"n{k}", float(ok)) for k, ok in enumerate(right)]
    five = {f"x{i}": LETTERS["x"] for i in range(5)}
    p = fit_label_model(seed, five).probabilities(seed)
    assert p == pytest.approx(0.75, abs=0.03)


def test_weak_labels_leave_out_what_no_rule_decides() -> None:
    seed = [pair(f"x{k}", f"n{k}", 1.0) for k in range(8)]
    unlabelled = [pair("x", "n", 0.0), pair("m", "n", 1.0), pair("n", "xx", 0.5)]
    found = weak_labels(seed, unlabelled, LETTERS)
    assert [(p.a, p.b) for p in found] == [("x", "n"), ("n", "xx")]
    assert found[0].p_a == pytest.approx(0.9)  # 9 right of 10, whatever label it came with
    assert found[1].p_a == pytest.approx(0.1)


def test_without_labels_or_above_chance_there_is_no_trust() -> None:
    with pytest.raises(DataError, match="no labelled pairs"):
        fit_label_model([])
    with pytest.raises(DataError, match="do not agree with the labels"):
        fit_label_model([pair(f"x{k}", f"n{k}", 0.0) for k in range(5)], LETTERS)


@pytest.mark.skipif(not PAIRS.exists(), reason=f"no labelled pairs in {DATA}")
def test_weak_labels_on_human_pairs_are_better_than_chance_and_know_it() -> None:
    rest, seed = split_by_prompt(read_preferences(str(PAIRS)), 0.3, 1)
    p = fit_label_model(seed).probabilities(rest)
    labels = [x.p_a for x in rest]
    found = accuracy(p - 0.5, labels, [x.prompt for x in rest]).share
    assert found is not None and found.low > 0.5
    error = calibration_error(p, labels)
    assert error is not None and error < 0.12
