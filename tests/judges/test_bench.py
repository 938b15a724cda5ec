"""Benches of judges whose verdicts are known, and on the shared pairs."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from sparring.judges.bench import Agreement, agreement, bench, cases_of, longer_by
from sparring.judges.measure import accuracy
from sparring.loop.errors import StepError
from sparring.loop.judgements import PATIENCE
from sparring.loop.labelled_pairs import Preference, read_preferences
from sparring.loop.types import Completion, JudgeCall, Judgement, Prompt, Record
from tests.helpers.paths import DATA
from tests.helpers.scripted_judges import DuelJudge, ScoreJudge

PAIRS = DATA / "prefs_pandalm_human.parquet"


def pair(prompt: str, a: str, b: str, p_a: float, subset: str = "") -> Preference:
    return Preference.make([{"role": "user", "content": prompt}], a, b, p_a, subset=subset)


# The judge: more x are better. Right: p, q. Wrong: r. A tie for the judge: s. For both: t. Silent: u.
PREFERENCES = [
    pair("p", "xxx", "x", 1.0, "one"),
    pair("q", "x and more", "xx", 0.2, "one"),
    pair("r", "xx", "xxx", 1.0, "two"),
    pair("s", "x!", "x", 0.0, "two"),
    pair("t", "x", "x.", 0.5, "two"),
    pair("u", "?", "x", 1.0, "two"),
]


def count(prompt: str, text: str) -> float | None:
    return None if "?" in text else float(text.count("x"))


def duel(first: str, second: str) -> float | None:
    if "?" in first + second:
        return None
    more = first.count("x") - second.count("x")
    return 0.5 + 0.4 * np.sign(more)


@pytest.mark.parametrize("judge", [ScoreJudge(count), DuelJudge(duel)])
def test_a_bench_by_hand(judge: ScoreJudge | DuelJudge) -> None:
    report = bench(judge, PREFERENCES)
    everything, one, two = report.rows
    assert [(r.subset, r.pairs) for r in report.rows] == [("", 6), ("one", 2), ("two", 4)]
    found = everything.accuracy
    assert found.share is not None and (found.share.value, found.share.n) == (2.5 / 4, 4)
    assert (found.decided, found.ties, found.abstained) == (5, 1, 1)
    assert (everything.labelled_ties, everything.ties_found) == (1, 1)
    assert one.accuracy.share is not None and one.accuracy.share.value == 1.0
    assert two.accuracy.share is not None and two.accuracy.share.value == 0.25
    # Longer wins: p right, q wrong, r wrong, s wrong, u a tie.
    assert everything.longer.share is not None and everything.longer.share.value == 1.5 / 5
    # Less that of longer-wins on p, q, r, s: (1 - 1) + (1 - 0) + (0 - 0) + (1/2 - 0).
    assert everything.difference is not None and everything.difference.value == pytest.approx(1.5 / 4)
    # Better is longer: p right. Better is shorter: q right, r wrong, s a tie.
    assert everything.length_controlled is not None
    assert everything.length_controlled.value == pytest.approx((1 + 0.5) / 2)
    signs = [None if d is None else np.sign(d) for d in report.deltas.values()]
    assert signs == [1, -1, -1, 0, 0, None]
    assert list(report.deltas) == [p.id for p in PREFERENCES]


def test_what_it_cost_and_how_often_the_place_decided() -> None:
    report = bench(
        DuelJudge(lambda first, second: 0.9 if "xxx" in first + second else duel(first, second)), PREFERENCES
    )
    assert (report.judgements, report.asked, report.calls, report.failed_calls) == (12, 12, 12, 2)
    assert (report.prompt_tokens, report.completion_tokens, report.cost) == (1200, 12, 3.0)
    everything, one, two = report.rows
    assert everything.position is not None
    # Pairs p and r have three x: there the first wins in both orders. u has no answer.
    assert (everything.position.duels, everything.position.disagree) == (5, 2 / 5)
    assert (everything.position.first, everything.position.second) == (2 / 5, 0)
    assert one.position is not None and one.position.disagree == 1 / 2
    assert two.position is not None and two.position.disagree == 1 / 3
    assert everything.accuracy.ties == 3  # p, r, s
    scored = bench(ScoreJudge(count), PREFERENCES)
    assert scored.rows[0].position is None
    assert (scored.calls, scored.cost) == (0, None)


def test_calibration_is_that_of_the_stated_chances() -> None:
    sure = [pair(f"{k}", "xx", "x", float(k % 4 > 0)) for k in range(40)]  # right 3 times in 4, sure to 0.9
    assert bench(DuelJudge(duel), sure).rows[0].calibration_error == pytest.approx(0.15)
    assert bench(ScoreJudge(lambda p, t: np.log(3) * t.count("x")), sure).rows[0].calibration_error == pytest.approx(0)


def test_an_answer_in_several_pairs_is_scored_once_and_each_pair_is_a_duel() -> None:
    texts = ["x", "xx", "xxx", "xxxx"]
    pairs = [pair("p", a, b, 0.0) for i, a in enumerate(texts) for b in texts[i + 1 :]]
    scores, duels = ScoreJudge(count), DuelJudge(duel)
    assert bench(scores, pairs).rows[0].accuracy == bench(duels, pairs).rows[0].accuracy
    assert (scores.asked, duels.asked) == (4, 12)


def test_which_answer_is_shown_first_is_a_fair_hash() -> None:
    pairs = [pair(f"{k}", f"a{k}", f"b{k}", 1.0) for k in range(300)]
    first = [c.shown[0] is c.a for c in cases_of(pairs, "bench", 0)]
    assert 120 < sum(first) < 180
    assert first == [c.shown[0] is c.a for c in cases_of(pairs, "bench", 0)]
    assert first != [c.shown[0] is c.a for c in cases_of(pairs, "bench", 1)]
    swapped = [pair(p.messages[0]["content"], p.b, p.a, 0.0) for p in pairs]
    assert [c.shown[0].text for c in cases_of(swapped, "bench", 0)] == [
        c.shown[0].text for c in cases_of(pairs, "bench", 0)
    ]


def test_swapping_a_and_b_changes_nothing() -> None:
    def bias(first: str, second: str) -> float | None:
        return 0.9 if len(first + second) % 2 else duel(first, second)

    one = bench(DuelJudge(bias), PREFERENCES)
    other = bench(DuelJudge(bias), [pair(p.messages[0]["content"], p.b, p.a, 1 - p.p_a, p.subset) for p in PREFERENCES])
    assert one.rows == other.rows
    assert list(other.deltas.values()) == [None if d is None else -d for d in one.deltas.values()]


def test_rows_are_those_of_a_loop_and_come_in_order() -> None:
    chunks: list[Sequence[Record]] = []
    bench(DuelJudge(duel), PREFERENCES, run="bench-x", remember=chunks.append)
    answers = [r for r in chunks[0] if isinstance(r, Completion)]
    prompts = [r for r in chunks[0] if isinstance(r, Prompt)]
    assert (len(prompts), len(answers), len(chunks)) == (6, 12, 7)
    assert {(c.origin, c.run, c.policy_id, tuple(c.token_ids)) for c in answers} == {("dataset", "bench-x", "", ())}
    assert {p.split for p in prompts} == {"eval"}
    assert all(isinstance(r, Judgement | JudgeCall) for chunk in chunks[1:] for r in chunk)


@pytest.mark.parametrize("kind", [DuelJudge, ScoreJudge])
def test_a_bench_that_died_resumes_where_it_stopped(kind: type[DuelJudge] | type[ScoreJudge]) -> None:
    def make() -> DuelJudge | ScoreJudge:
        return DuelJudge(duel) if kind is DuelJudge else ScoreJudge(count)

    kept: list[Record] = []
    whole = bench(make(), PREFERENCES, remember=kept.extend)
    for stop in range(1, 8):
        stored: list[Record] = []

        def remember(chunk: Sequence[Record], stored: list[Record] = stored, stop: int = stop) -> None:
            if len({type(r) for r in chunk} & {Judgement}) and sum(isinstance(r, Judgement) for r in stored) >= stop:
                raise KeyboardInterrupt
            stored.extend(chunk)

        with pytest.raises(KeyboardInterrupt):
            bench(make(), PREFERENCES, remember=remember)
        known = [r for r in stored if isinstance(r, Judgement | JudgeCall)]
        again = make()
        second = bench(again, PREFERENCES, known=known)
        done = sum(isinstance(r, Judgement) for r in known)
        assert again.asked == second.asked == whole.judgements - done
        assert (second.rows, second.deltas, second.calls, second.cost) == (
            whole.rows, whole.deltas, whole.calls, whole.cost
        )  # fmt: skip
        if done >= whole.judgements - 2:
            break


def test_an_answer_of_none_stands_but_no_reply_is_asked_again() -> None:
    stored: list[Record] = []
    refused = ScoreJudge(lambda p, t: None, why="refused")
    bench(refused, PREFERENCES, remember=stored.extend)
    known = [r for r in stored if isinstance(r, Judgement)]
    assert bench(ScoreJudge(count), PREFERENCES, known=known).asked == 0
    gone = [replace(j, status="unreached") for j in known]
    again = bench(ScoreJudge(count), PREFERENCES, known=gone)
    assert again.asked == 12
    assert again.rows == bench(ScoreJudge(count), PREFERENCES).rows


def test_rows_of_other_pairs_and_places_are_not_read() -> None:
    stored: list[Record] = []
    for seed in range(4):
        bench(DuelJudge(lambda first, second: 0.0), PREFERENCES, seed=seed, remember=stored.extend)
    shown = {(c.shown[0].id, c.shown[1].id) for c in cases_of(PREFERENCES, "bench", 9)}
    known = [
        r for r in stored
        if isinstance(r, JudgeCall) or (isinstance(r, Judgement) and (r.completion_id, r.rival_id) not in shown)
    ]  # fmt: skip
    assert known
    fresh = bench(DuelJudge(duel), PREFERENCES, seed=9)
    mixed = bench(DuelJudge(duel), PREFERENCES, seed=9, known=known)
    assert (mixed.rows, mixed.judgements, mixed.calls) == (fresh.rows, fresh.judgements, fresh.calls)


def test_a_judge_that_is_gone_is_given_up_soon() -> None:
    pairs = [pair(f"{k}", "x", "xx", 1.0) for k in range(500)]
    dead = ScoreJudge(lambda p, t: None, why="connection refused", status="unreached")
    with pytest.raises(StepError, match=rf"no reply to {PATIENCE} questions in a row, the last: connection"):
        bench(dead, pairs)
    assert dead.asked <= PATIENCE + 2
    flaky = ScoreJudge(lambda p, t: None if t == "x" else 1.0, why="timeout", status="unreached")
    assert bench(flaky, pairs).rows[0].accuracy.abstained == 500


def test_equal_texts_are_a_tie_that_is_not_asked() -> None:
    pairs = [pair("p", "x", "x", 1.0), pair("q", "x", "xx", 0.0)]
    for judge in (DuelJudge(duel), ScoreJudge(count)):
        report = bench(judge, pairs)
        assert judge.asked == 2
        assert report.rows[0].accuracy.ties == 1


def test_agreement_by_hand() -> None:
    one = {"a": 1.0, "b": 0.3, "c": -2.0, "d": 0.0, "e": None, "f": 1.0}
    other = {"a": 0.1, "b": -0.1, "c": -0.5, "d": 0.5, "e": 1.0, "g": 1.0}
    # a and c alike, b opposed, d a tie for one: 2/4; expected (2 * 2 + 1 * 2 + 1 * 0) / 16 = 3/8, kappa (1/8) / (5/8).
    assert agreement(one, other) == Agreement(4, 0.5, 0.25, pytest.approx(0.2))
    assert agreement(one, {}) == Agreement(0, None, None, None)
    assert agreement(one, one) == Agreement(5, 1.0, 0.0, 1.0)


@pytest.mark.skipif(not PAIRS.exists(), reason=f"no labelled pairs in {DATA}")
def test_the_judge_of_length_is_the_baseline() -> None:
    pairs = read_preferences(str(PAIRS))
    row = bench(ScoreJudge(lambda prompt, text: float(len(text))), pairs).rows[0]
    assert row.accuracy == row.longer
    assert row.accuracy.share is not None and round(row.accuracy.share.value, 2) == 0.64
    assert row.length_controlled is not None and row.length_controlled.value == 0.5
    assert row.difference is not None and (row.difference.low, row.difference.high) == (0.0, 0.0)
    assert row.labelled_ties == 53


def test_longer_by_counts_characters() -> None:
    pairs = [pair("go", "four", "to", 1.0), pair("go", "a", "bcd", 1.0), pair("go", "ab", "cd", 0.0)]
    assert longer_by(pairs).tolist() == [2, -2, 0]


@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("alpacaeval_direct", 0.74),
        ("alpacaeval_derived", 0.77),
        ("hh_harmless_human", 0.44),
        ("mtbench_llmeval2_faireval_human", 0.62),
        ("pandalm_human", 0.64),
        ("qafeedback_human", 0.50),
    ],
)
def test_longer_wins_is_as_the_data_states(name: str, stated: float) -> None:
    file = DATA / f"prefs_{name}.parquet"
    if not file.exists():
        pytest.skip(f"no labelled pairs at {file}")
    pairs = read_preferences(str(file))
    found = accuracy(longer_by(pairs), [p.p_a for p in pairs], [p.prompt for p in pairs]).share
    assert found is not None and round(found.value, 2) == stated
