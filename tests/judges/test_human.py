"""People as judges: a value favours the answer that was chosen, whichever side it was on; one duel is one id."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from sparring.judges.human import Choice, Question, answered, people_judge, questions, read
from sparring.loop.errors import ConfigError
from sparring.loop.judgements import duel_id
from sparring.loop.types import Completion, Group
from tests.helpers.experience import completion
from tests.helpers.records import prompt

ANN = people_judge("ann").id


def group(number: int, texts: Sequence[str], rivals: Sequence[str] = ()) -> Group:
    asked = prompt(f"question {number}")
    mine = tuple(completion(asked.id, k, text) for k, text in enumerate(texts))
    theirs = (replace(completion(asked.id, k, text), id=f"rival_{asked.id}_{k}") for k, text in enumerate(rivals))
    return Group(asked, mine, tuple(theirs))


def many(n: int) -> list[Question]:
    return questions([group(k, [f"good {k}", f"bad {k}"]) for k in range(n)], set(), 0)


def left_is_completion(q: Question) -> bool:
    return q.shown(ANN)[0] == q.completion.text


def test_a_value_favours_the_answer_on_the_chosen_side() -> None:
    sides = set()
    for q in many(40):
        left = left_is_completion(q)
        sides.add(left)
        wins: dict[Choice, float | None] = {
            "left": 1.0 if left else 0.0,
            "right": 0.0 if left else 1.0,
            "tie": 0.5,
            "skip": None,
        }
        for choice, value in wins.items():
            told = q.judgement(ANN, choice)
            assert (told.completion_id, told.rival_id) == (q.completion.id, q.rival.id)
            assert told.value == value
            assert told.order == (0 if left else 1)
    assert sides == {True, False}


def test_a_duel_is_one_row_whatever_is_said_of_it() -> None:
    for q in many(10):
        made = {q.judgement(ANN, choice).id for choice in ("left", "right", "tie", "skip")}
        assert made == {duel_id(ANN, q.completion, q.rival, q.order(ANN))}


def test_sides_are_drawn_for_each_person() -> None:
    asked = many(400)
    ann, bob = ([q.order(people_judge(who).id) for q in asked] for who in ("ann", "bob"))
    assert 160 < sum(ann) < 240  # 4 standard deviations about 200
    assert 160 < sum(a != b for a, b in zip(ann, bob, strict=True)) < 240
    assert [q.order(ANN) for q in asked] == ann


def ids(found: Sequence[Question]) -> list[tuple[str, str]]:
    return [(q.completion.text, q.rival.text) for q in found]


def test_of_a_train_prompt_one_duel_is_asked_the_pair_where_there_is_one() -> None:
    groups = [group(0, ["a", "b", "c", "d"]), group(1, ["same", "same"]), group(2, ["only"]), group(3, ["e", "e", "f"])]
    _, b, c, _ = groups[0].completions
    assert sorted(ids(questions(groups, {frozenset((c.id, b.id))}, 0))) == [("b", "c"), ("e", "f")]
    drawn = {ids(questions(groups[:1], set(), seed))[0] for seed in range(60)}
    assert drawn == {("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d")}


def test_a_pair_stands_for_its_texts_also_when_other_samples_have_them() -> None:
    asked = group(0, ["e", "f", "e", "f"])
    third, fourth = asked.completions[2:]
    (found,) = questions([asked], {frozenset((third.id, fourth.id))}, 0)
    assert found.both == {third.id, fourth.id}


def test_of_a_held_out_prompt_each_answer_meets_the_rivals_of_its_number() -> None:
    asked = group(0, ["a", "same", "c", "a"], ["x", "same", "z", "x"])
    found = questions([asked], set(), 0)
    assert sorted(ids(found)) == [("a", "x"), ("c", "z")]  # "a" against "x" once
    assert {q.rival.id for q in found} <= {c.id for c in asked.rivals}


def test_the_seed_draws_the_order() -> None:
    groups = [group(k, [f"good {k}", f"bad {k}"]) for k in range(30)]
    one, again, other = (ids(questions(groups, set(), seed)) for seed in (0, 0, 1))
    assert one == again != other
    assert sorted(one) == sorted(other)
    assert one != ids([Question(g.prompt, *g.completions) for g in groups])


def test_one_order_is_an_answer_and_a_skip_is_none() -> None:
    first, second, third = many(3)
    said = [first.judgement(ANN, "tie"), second.judgement(ANN, "skip"), third.judgement(ANN, "left")]
    p = 1.0 if left_is_completion(third) else 0.0
    forward = {(first.completion.id, first.rival.id): 0.5, (third.completion.id, third.rival.id): p}
    assert read(said).duels == forward | {(b, a): 1 - value for (a, b), value in forward.items()}
    assert answered(said) == {first.both, third.both}


def test_a_duel_that_was_asked_the_other_way_round_is_answered() -> None:
    (q,) = many(1)
    assert answered([Question(q.prompt, q.rival, q.completion).judgement(ANN, "left")]) == {q.both}


@pytest.mark.parametrize("who", ["", "two words", "a\nb", "x" * 65, "../up"])
def test_a_name_is_one_word(who: str) -> None:
    with pytest.raises(ConfigError, match="--who NAME"):
        people_judge(who)


def test_a_person_is_a_judge_of_kind_people() -> None:
    judge = people_judge("ann@lab.org")
    assert (judge.id, judge.kind, judge.options["who"]) == ("people:ann@lab.org", "people", "ann@lab.org")
    assert isinstance(many(1)[0].completion, Completion)
