"""From raw judgements to scores and duels, and when a judge that falls silent stops a run (pitfalls 35, 37, 38)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sparring.loop.errors import StepError
from sparring.loop.evaluator import RivalEvaluator
from sparring.loop.fakes import FakeJudge, FakeLearner, FakeSampler
from sparring.loop.judgements import (
    Pairwise,
    both_orders,
    duel_id,
    duel_scores,
    duels,
    refuse_silence,
    score_id,
    to_judge,
    unjudged,
)
from sparring.loop.pairing.pipeline import pairing
from sparring.loop.parts import Parts
from sparring.loop.round import play, round_zero
from sparring.loop.types import Completion, Experience, Group, Judgement, JudgementStatus, Prompt
from sparring.store.store import DuckStore
from tests.helpers.experience import ROUND, completion, experience
from tests.helpers.records import HELD_OUT, INFO, TRAIN, checkpoint

A, B, C = (completion("p", i, text) for i, text in enumerate(("aa", "bbb", "c")))


def told(a: Completion, b: Completion, order: int, value: float | None, member: str = "") -> Judgement:
    return Judgement(duel_id("j", a, b, order, member), "j", a.id, b.id, member, "", order, value)


@pytest.mark.parametrize(
    ("first", "second", "tie", "abstain"),
    [
        (0.9, 0.7, 0.8, 0.8),
        (0.1, 0.3, 0.2, 0.2),
        (0.9, 0.3, 0.5, None),  # it named the first both times
        (1.0, 0.0, 0.5, None),
        (0.5, 0.9, 0.7, 0.7),  # undecided, then decided: no contradiction
        (None, 0.9, None, None),  # half a verdict is none
        (0.9, None, None, None),
    ],
)
def test_two_orders_are_one_verdict(
    first: float | None, second: float | None, tie: float | None, abstain: float | None
) -> None:
    assert both_orders(first, second) == (None if tie is None else pytest.approx(tie))
    assert both_orders(first, second, "abstain") == (None if abstain is None else pytest.approx(abstain))


def test_scores_of_duels_are_worked_by_hand() -> None:
    said = [told(A, B, 0, 1.0), told(A, B, 1, 0.6), told(A, C, 0, 1.0), told(A, C, 1, 0.0), told(B, C, 0, 0.2)]
    reading = duel_scores(said)
    assert reading.duels == {(A.id, B.id): 0.8, (B.id, A.id): pytest.approx(0.2), (A.id, C.id): 0.5, (C.id, A.id): 0.5}
    assert reading.scores == {A.id: pytest.approx(0.65), B.id: pytest.approx(0.2), C.id: 0.5}  # B against C: no verdict


def test_members_are_averaged_after_each_is_read_in_both_orders() -> None:
    said = [told(A, B, 0, 1.0, "x"), told(A, B, 1, 1.0, "x"), told(A, B, 0, 1.0, "y"), told(A, B, 1, 0.0, "y")]
    assert duel_scores(said).duels[A.id, B.id] == 0.75


class AlwaysFirst(Pairwise):
    """Says that the answer shown first is better, whatever it is."""

    name = "always-first"

    def judge(self, groups: Sequence[Group]) -> Iterator[list[Judgement]]:
        for group in groups:
            yield [told(a, b, order, 1.0 - order) for a, b in duels(group) for order in (0, 1)]


def test_a_judge_that_always_says_first_makes_no_pair_and_wins_nothing() -> None:
    group = Group(Prompt("p", ({"role": "user", "content": "?"},)), (A, B, C))
    said = [j for chunk in AlwaysFirst().judge([group]) for j in chunk]
    assert len(said) == 6
    (outcome,) = pairing("best_worst", duel_scores)(ROUND, Experience((group,), tuple(said)))
    assert outcome.outcome == "tie"  # type: ignore[union-attr]


def test_a_pair_carries_the_judges_probability_and_its_duel_must_agree() -> None:
    group = Group(Prompt("p", ({"role": "user", "content": "?"},)), (A, B))
    sure = Experience((group,), (told(A, B, 0, 0.9), told(A, B, 1, 0.7)))
    pair, outcome = pairing("best_worst", duel_scores)(ROUND, sure)
    assert (pair.chosen_id, pair.p_chosen, outcome.outcome) == (A.id, 0.8, "paired")  # type: ignore[union-attr]
    # A has 0.7 points, C 0.5, B 0.3; but A's own duel with B is lost: A must not be chosen over B.
    three = replace(group, completions=(A, B, C))
    points = [(A, B, 0.4), (A, C, 1.0), (B, C, 0.0)]
    crossed = Experience((three,), tuple(told(x, y, order, p) for x, y, p in points for order in (0, 1)))
    assert [o.outcome for o in pairing("best_worst", duel_scores)(ROUND, crossed)] == ["tie"]  # type: ignore[union-attr]


def test_equal_texts_are_never_asked_and_a_group_of_them_is_identical() -> None:
    same = replace(A, id="again", sample=9)
    group = Group(Prompt("p", ({"role": "user", "content": "?"},)), (A, same))
    assert duels(group) == []
    (outcome,) = pairing("best_worst", duel_scores)(ROUND, Experience((group,), ()))
    assert outcome.outcome == "identical"  # type: ignore[union-attr]


def test_rivals_meet_the_answer_of_their_number() -> None:
    rivals = tuple(replace(c, id=f"r{c.sample}", text=f"r{c.sample}") for c in (A, C))
    group = Group(Prompt("p", ({"role": "user", "content": "?"},)), (A, B, C), rivals)
    assert [(a.id, b.id) for a, b in duels(group)] == [(A.id, "r0"), (C.id, "r2")]
    assert AlwaysFirst().missing(group) == 4
    assert AlwaysFirst().missing(replace(group, judged=(told(A, rivals[0], 1, 0.5),))) == 3


def test_the_evaluator_counts_duels_with_the_rival() -> None:
    mine = experience({"p": [("aa", 0), ("b", 0)], "q": [("same", 0)], "s": [("mine", 0)]}, "new")
    theirs = experience({"p": [("xx", 0), ("y", 0)], "q": [("same", 0)], "s": [("theirs", 0)]}, "old")
    (p, _, s), (rp, _, rs) = (e.groups for e in (mine, theirs))
    said = [told(p.completions[0], rp.completions[0], order, 1.0) for order in (0, 1)]
    said += [told(p.completions[1], rp.completions[1], order, 1.0 - order) for order in (0, 1)]
    said += [told(s.completions[0], rs.completions[0], order, None) for order in (0, 1)]
    evaluator = RivalEvaluator(read=duel_scores, compares=True)
    found = {e.metric: e for e in evaluator.evaluate(ROUND, replace(mine, judgements=tuple(said)), theirs, {})}
    assert (found["win_rate"].value, found["win_rate"].n) == (0.625, 2)  # p: (1 + 0.5) / 2; q: the same text, a tie
    assert found["abstained"].value == pytest.approx(1 / 3)
    assert "pass_rate" not in found


def scored(
    n: int, value: float | None, why: str = "", start: int = 0, status: JudgementStatus = "abstained"
) -> list[Judgement]:
    return [
        Judgement(score_id("j", completion("p", i, "x")), "j", f"c{i}", None, "", "", 0, value, why, status)
        for i in range(start, start + n)
    ]


def test_a_silent_judge_stops_soon_and_open_questions_stay_open() -> None:
    stored: list[Judgement] = []

    def chunks() -> Iterator[list[Judgement]]:
        yield scored(10, 1.0)
        yield scored(15, None, "connection refused", 10, "unreached")
        raise AssertionError("asked on, though 15 of 25 had no answer")

    with pytest.raises(StepError, match=r"15 of 25 .*60%.*50%.*connection refused.*spar resume"):
        for chunk in refuse_silence(chunks(), [], 0.5, "j"):
            stored += chunk  # type: ignore[arg-type]
    assert len(stored) == 10  # what came back is kept, what never came is asked again


def test_few_silences_are_stored_at_the_end_and_refusals_at_once() -> None:
    gone = scored(1, None, "timeout", status="unreached")
    chunks = [gone, scored(1, None, "refused", 1), scored(4, 1.0, start=2)]
    passed = [list(chunk) for chunk in refuse_silence(chunks, [], 0.5, "j")]
    assert [[j.rationale for j in chunk] for chunk in passed] == [[], ["refused"], [""] * 4, ["timeout"]]  # type: ignore[union-attr]


def test_after_a_stop_what_had_no_answer_is_asked_again_else_not() -> None:
    given = experience({"p": [(f"{i}", None if i < 12 else 1.0) for i in range(20)]})
    (group,) = to_judge(given, None, max_abstain=0.5)
    assert [c.text for c in unjudged(group)] == [str(i) for i in range(12)]
    (group,) = to_judge(given, None, max_abstain=0.7)
    assert unjudged(group) == []
    few = experience({"p": [("a", None), ("b", None)]})
    assert [unjudged(g) for g in to_judge(few, None, max_abstain=0.5)] == [[]]  # too few to speak of a share


class Sometimes(FakeJudge):
    """A fake judge that answers no more while `down`."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.asked = False, 0

    def judge(self, groups: Sequence[Group]) -> Iterator[list[Judgement]]:
        for chunk in super().judge(groups):
            self.asked += len(chunk)
            yield (
                [replace(j, value=None, rationale="it is down", status="unreached") for j in chunk]
                if self.down
                else chunk
            )


def test_a_run_stops_when_its_judge_goes_down_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    asked, values = [], []
    for name, down in (("undisturbed", False), ("disturbed", True)):
        store, initial = DuckStore(tmp_path / f"{name}.duckdb"), checkpoint("initial")
        store.add([[INFO, initial, *TRAIN, *HELD_OUT]])
        wavering = Sometimes()
        parts = Parts(
            store, FakeSampler({"train": 8, "eval": 2}), wavering, pairing("best_worst", wavering.read), FakeLearner(),
            RivalEvaluator(), tuple(p.id for p in TRAIN), tuple(p.id for p in HELD_OUT), per_round=3,
        )  # fmt: skip
        first = play(round_zero(INFO.id, initial), parts)
        wavering.down = down
        if down:
            with pytest.raises(StepError, match=r"it is down.*spar resume"):
                play(first, parts)
            assert store.experience(first, wavering.name).judgements == ()
            wavering.down = False
        second = play(first, parts)
        assert second.index == 2
        asked.append(wavering.asked)
        values.append([(j.id, j.value) for j in store.experience(first, wavering.name).judgements])
    assert values[0] == values[1]
    assert all(value is not None for _, value in values[1])
    assert asked[1] - asked[0] == 24  # all of the round while the judge was down; each answer once
