"""Principles: readings worked by hand, and a judge whose client knows which text follows which principle."""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import exp, log
from pathlib import Path

import pytest

from sparring.judges.llm_client import Question
from sparring.judges.principles import (
    OURS,
    Principle,
    PrinciplesJudge,
    draw,
    principles_judge,
    read_principles,
    strongest_principle,
    truncated_geometric,
)
from sparring.loop.errors import ConfigError, StepError
from sparring.loop.types import Completion, Group, JudgeCall, Judgement, Prompt
from tests.helpers.fake_client import Answer, FakeClient

PROMPT = Prompt.make([{"role": "user", "content": "Say something."}], "train", "test", {})


def completion(name: str, text: str) -> Completion:
    return Completion(name, "run", 1, PROMPT.id, "policy", 0, "policy", text, (), (), "stop", 1.0, 1.0, 0)


def group(*texts: str) -> Group:
    return Group(PROMPT, tuple(completion(f"c{k}", text) for k, text in enumerate(texts)))


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def row(duel: str, principle: str, order: int, logit: float | None) -> Judgement:
    value = None if logit is None else sigmoid(logit)
    return Judgement(f"{duel}/{principle}/{order}", "judge", duel[0], duel[1], "", principle, order, value)


def told(table: Mapping[tuple[str, str], tuple[float | None, float | None]]) -> list[Judgement]:
    """(duel, principle) -> the logits of both orders."""
    return [row(duel, name, order, x) for (duel, name), pair in table.items() for order, x in enumerate(pair)]


# --- what judgements come to


def test_the_principle_that_is_loudest_for_its_variance_decides() -> None:
    # x: logits 2 4 -2 -4 have variance 10, so scores 3/10 and -3/10.
    # y: logits -1 -1 1 -1 have variance 3/4, so score -4/3 on the first duel, and 0 on the second: its orders disagree.
    found = strongest_principle(
        told({("ab", "x"): (2, 4), ("cd", "x"): (-2, -4), ("ab", "y"): (-1, -1), ("cd", "y"): (1, -1)})
    )
    assert found.duels == pytest.approx(
        {("a", "b"): sigmoid(-1), ("b", "a"): sigmoid(1), ("c", "d"): sigmoid(-3), ("d", "c"): sigmoid(3)}
    )
    assert found.scores == pytest.approx({"a": sigmoid(-1), "b": sigmoid(1), "c": sigmoid(-3), "d": sigmoid(3)})


def test_orders_that_disagree_are_no_decision() -> None:
    assert strongest_principle(told({("ab", "x"): (5, -1), ("ab", "y"): (-1, 2)})).duels["a", "b"] == 0.5
    assert strongest_principle(told({("ab", "x"): (5, 0)})).duels["a", "b"] == 0.5


def test_without_variance_the_score_is_the_mean_logit() -> None:
    # One duel: x does not win for its orders being alike to the last digit.
    one = told({("ab", "x"): (0.1, 0.1), ("ab", "y"): (-1, -3)})
    assert strongest_principle(one).duels["a", "b"] == pytest.approx(sigmoid(-2))
    nearly = told({("ab", "x"): (0.1, 0.1001), ("ab", "y"): (-1, -3)})
    assert strongest_principle(nearly).duels["a", "b"] == pytest.approx(sigmoid(-2))
    # Two duels of which x says the very same: -2 of y, with variance 4, has score -1/2.
    two = told({("ab", "x"): (0.4, 0.4), ("cd", "x"): (0.4, 0.4), ("ab", "y"): (-2, -2), ("cd", "y"): (2, 2)})
    assert strongest_principle(two).duels["a", "b"] == pytest.approx(sigmoid(-2))
    assert strongest_principle(two).duels["c", "d"] == pytest.approx(sigmoid(2))


def test_principles_that_say_the_opposite_equally_loud_tie() -> None:
    assert strongest_principle(told({("ab", "x"): (3, 3), ("ab", "y"): (-3, -3)})).duels["a", "b"] == 0.5


def test_a_principle_without_an_answer_in_one_order_has_no_say() -> None:
    found = strongest_principle(told({("ab", "x"): (9, None), ("ab", "y"): (-1, -1), ("cd", "x"): (None, None)}))
    assert found.duels == pytest.approx({("a", "b"): sigmoid(-1), ("b", "a"): sigmoid(1)})


def test_a_certain_verdict_has_a_logit_too() -> None:
    certain = [Judgement(f"{k}", "judge", "a", "b", "", "x", k, 1.0) for k in (0, 1)]
    assert strongest_principle(certain).duels["b", "a"] == pytest.approx(1e-6)


def test_changing_the_answers_places_turns_every_verdict_round() -> None:
    table = {("ab", "x"): (2.0, 4.0), ("cd", "x"): (-2.0, -4.0), ("ab", "y"): (-1.0, -1.5), ("cd", "y"): (1.0, -1.0)}
    turned = {(duel[::-1], name): (-first, -second) for (duel, name), (first, second) in table.items()}
    assert strongest_principle(told(turned)).duels == pytest.approx(strongest_principle(told(table)).duels)


# --- which principles are asked


def test_the_number_of_principles_is_a_geometric_draw_cut_off() -> None:
    # P(1), P(2), P(3) are as 1 to 0.8 to 0.64, their sums 0.410, 0.738, 1.
    assert [truncated_geometric(u, 3) for u in (0, 0.409, 0.411, 0.737, 0.739, 1 - 1e-12)] == [1, 1, 2, 2, 3, 3]
    assert {truncated_geometric(u / 100, 1) for u in range(100)} == {1}


def test_draws_are_fair_and_the_same_each_time() -> None:
    principles = read_principles(OURS)
    drawn = [draw(principles, completion(f"a{k}", ""), completion(f"b{k}", ""), 8, 0) for k in range(1500)]
    weights = [0.8**n for n in range(8)]
    sizes = Counter(map(len, drawn))
    for n, weight in enumerate(weights, start=1):
        assert sizes[n] / 1500 == pytest.approx(weight / sum(weights), abs=0.04)
    asked = [each for one in drawn for each in one]
    assert sum(negated for _, negated in asked) / len(asked) == pytest.approx(0.5, abs=0.03)
    shares = Counter(p.name for p, _ in asked)
    assert all(share / len(asked) == pytest.approx(1 / 8, abs=0.02) for share in shares.values())
    a, b = completion("a1", ""), completion("b1", "")
    assert draw(principles, b, a, 8, 0) == draw(principles, a, b, 8, 0) == drawn[1]
    assert [draw(principles, a, b, 8, seed) for seed in range(9)] != [drawn[1]] * 9
    assert {p.name for p, _ in draw(principles, a, b, None, 0)} == {p.name for p in principles}


# --- the judge: its client reads the prompt, and knows that less is concise and more is complete

MERIT: dict[str, Callable[[str], float]] = {
    "concise": lambda text: -len(text),
    "complete": len,
    "bold": lambda text: text.count("!"),
}
PRINCIPLES = [Principle(name, f"Is {name}.", f"Is not {name}.") for name in MERIT]


@pytest.fixture
def ours(tmp_path: Path) -> str:
    path = tmp_path / "principles.yaml"
    path.write_text(
        json.dumps([{"name": p.name, "definition": p.definition, "negation": p.negation} for p in PRINCIPLES])
    )
    return str(path)


def shown(question: Question) -> tuple[str, str, str]:
    """The first answer, the second one and the description, as the prompt has them."""
    text = question.messages[-1]["content"]
    first, second = (re.search(rf"BEGIN ANSWER {label} \w+\n(.*)\n", text) for label in "AB")
    description = re.search(r"The description: (.*)", text)
    assert first and second and description
    return json.loads(first[1]), json.loads(second[1]), description[1]


def knows(question: Question) -> Answer:
    """Logit = difference of merit, turned round where a fault is described."""
    first, second, description = shown(question)
    words = description.rstrip(".").split()
    logit = (MERIT[words[-1]](first) - MERIT[words[-1]](second)) * (-1 if "not" in words else 1)
    return {"A": log(sigmoid(logit)), "B": log(sigmoid(-logit))}


def rows(judge: PrinciplesJudge, *groups: Group) -> list[Judgement]:
    return [r for chunk in judge.judge(groups) for r in chunk if isinstance(r, Judgement)]


def test_values_speak_of_the_principle_whatever_was_shown(ours: str) -> None:
    client = FakeClient(knows)
    judge = PrinciplesJudge(client, principles=ours, max_principles=None)
    of = group("aa", "b", "c!cc")
    texts = {c.id: c.text for c in of.completions}
    found = rows(judge, of)
    assert len(found) == len(client.asked) == judge.missing(of) == 3 * 3 * 2
    for j in found:
        assert j.rival_id is not None
        difference = MERIT[j.principle](texts[j.completion_id]) - MERIT[j.principle](texts[j.rival_id])
        assert j.value == pytest.approx(sigmoid(difference))
    # Both kinds of description were shown, each duel's in both orders, and the rows say which.
    said = {q.id: shown(q) for q in client.asked}
    for j in found:
        first, second, description = said[j.id]
        assert (j.rationale == "negated") == ("not" in description)
        assert (first, second)[j.order] == texts[j.completion_id]
    assert {j.rationale for j in found} == {"", "negated"}


def test_a_judge_that_always_names_the_first_decides_nothing(ours: str) -> None:
    judge = PrinciplesJudge(FakeClient(lambda _: {"A": log(0.9), "B": log(0.1)}), principles=ours)
    of = group("aa", "b", "c!cc")
    assert set(judge.read(rows(judge, of)).duels.values()) == {0.5}


def test_a_judge_that_knows_decides(ours: str) -> None:
    judge = PrinciplesJudge(FakeClient(knows), principles=ours, max_principles=None)
    # Only complete (+3) and concise (-3) tell the first two apart, equally loud; the third is bold too.
    assert judge.read(rows(judge, group("aaaa", "b"))).duels["c0", "c1"] == 0.5
    assert judge.read(rows(judge, group("aaaa", "b!!!!!"))).duels["c0", "c1"] == pytest.approx(sigmoid(-5))


def test_what_the_model_does_not_answer_is_no_answer(ours: str) -> None:
    def fails(question: Question) -> Answer:
        first, _, _ = shown(question)
        return None if first == "b" else "perhaps" if first == "aa" else knows(question)

    judge = PrinciplesJudge(FakeClient(fails), principles=ours, max_principles=None)
    of = group("aa", "b")
    found = rows(judge, of)
    assert {j.value for j in found} == {None}
    assert {(j.status, j.rationale.startswith("no label: 'perhaps'")) for j in found} == {
        ("unreached", False),
        ("abstained", True),
    }
    assert judge.read(found).duels == {}
    assert judge.missing(replace(of, judged=tuple(found))) == 0


def test_however_far_it_got_it_asks_only_what_is_missing(ours: str) -> None:
    of = [group("aa", "b", "c!cc")]
    everything = {j.id: j for j in rows(PrinciplesJudge(FakeClient(knows), principles=ours), *of)}
    kept: list[Judgement] = []
    client = FakeClient(knows, chunk=2, dies_after=4)
    with pytest.raises(StepError):
        for chunk in PrinciplesJudge(client, principles=ours).judge(of):
            kept += [r for r in chunk if isinstance(r, Judgement)]
            assert {r.judgement_id for r in chunk if isinstance(r, JudgeCall)} == {j.id for j in kept[-2:]}
    assert len(kept) == 4
    again = FakeClient(knows)
    judge = PrinciplesJudge(again, principles=ours)
    half = replace(of[0], judged=tuple(kept))
    assert judge.missing(half) == len(everything) - 4
    assert {j.id: j for j in (*kept, *rows(judge, half))} == everything
    assert {q.id for q in again.asked} == everything.keys() - {j.id for j in kept}


def test_the_name_tells_apart_what_shapes_a_verdict(ours: str) -> None:
    client = FakeClient(knows, model="m")
    names = [
        PrinciplesJudge(client).name,
        PrinciplesJudge(client, principles=ours).name,
        PrinciplesJudge(client, max_principles=None).name,
        PrinciplesJudge(client, seed=1).name,
        PrinciplesJudge(FakeClient(knows, model="n")).name,
    ]
    assert len({*names}) == 5
    assert principles_judge(model="m", endpoint={"base_url": "http://127.0.0.1:9/v1"}).name == names[0]


def test_our_principles_can_be_read() -> None:
    assert len(read_principles(OURS)) == 8


@pytest.mark.parametrize(
    "text",
    ["", "[]", "honest: yes", "- honest", "- {name: a, definition: b}", "- {name: a, definition: b, negation: 3}", "{"]
    + ["[{name: a, definition: b, negation: c}, {name: a, definition: d, negation: e}]"],
)
def test_a_file_without_principles_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"expected|give a YAML file"):
        read_principles(tmp_path / "p.yaml")


@pytest.mark.parametrize("most", [0, -1, 2.5, True])
def test_an_option_out_of_range_is_refused(most: int) -> None:
    with pytest.raises(ConfigError, match="expected"):
        PrinciplesJudge(FakeClient(knows), max_principles=most)
