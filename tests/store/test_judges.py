"""What SQL says of judges: duels, position bias, agreement, costs; and that a second judge counts nothing twice."""

from pathlib import Path
from typing import Any

import pytest

from sparring.loop.judgements import duel_id
from sparring.loop.types import Completion, JudgeCall, JudgeInfo, Judgement
from sparring.store.db import rows
from sparring.store.lineage import walk
from sparring.store.store import DuckStore
from tests.helpers.records import checkpoint, completion, filled_store, judgement, prompt, round_of


def ask(store: DuckStore, sql: str) -> list[dict[str, Any]]:
    with store.db.read() as con:
        return rows(con, sql)


def told(judge: str, a: Completion, b: Completion, first: float | None, second: float | None) -> list[Judgement]:
    """P(a beats b) as the judge tells it with a shown first, and with a shown second."""
    return [
        Judgement(duel_id(judge, a, b, order), judge, a.id, b.id, "", "", order, p)
        for order, p in enumerate((first, second))
    ]


@pytest.fixture
def store(tmp_path: Path) -> DuckStore:
    return DuckStore(tmp_path / "s.duckdb")


def answers(store: DuckStore) -> list[Completion]:
    policy, asked = checkpoint("policy"), prompt("Which?")
    made = [completion(round_of(1, policy, policy, [asked]), asked, k, text=text) for k, text in enumerate("abc")]
    store.add([[policy, asked, *made]])
    return made


def test_duels_are_read_as_the_loop_reads_them(store: DuckStore) -> None:
    a, b, c = answers(store)
    store.add([[*told("j", a, b, 0.9, 0.7), *told("j", a, c, 1.0, 0.0), *told("j", b, c, 0.2, None)]])
    found = {(r["completion_id"], r["rival_id"]): r for r in ask(store, "SELECT * FROM duels")}
    assert found[a.id, b.id]["p_wins"] == pytest.approx(0.8)
    assert found[a.id, c.id]["p_wins"] == 0.5  # the orders disagree
    assert (found[b.id, c.id]["p_wins"], found[b.id, c.id]["answered"]) == (None, False)
    (bias,) = ask(store, "SELECT * FROM position_bias")
    assert bias == {"judge": "j", "duels": 2, "disagree": 0.5, "both_first": 0.5, "both_second": 0.0, "run_id": a.run}


def test_judges_agree_on_the_same_two_answers_whichever_way_they_were_asked(store: DuckStore) -> None:
    a, b, c = answers(store)
    store.add([[*told("j", a, b, 0.9, 0.7), *told("j", a, c, 1.0, 0.0), *told("j", b, c, 0.1, 0.1)]])
    store.add([[*told("k", b, a, 0.2, 0.2), *told("k", a, c, 0.9, 0.9), *told("k", b, c, 0.9, 0.9)]])  # asks (b, a)
    (found,) = ask(store, "SELECT * FROM judge_agreement")
    assert (found["judge"], found["other_judge"], found["duels"]) == ("j", "k", 3)
    assert found["agreement"] == pytest.approx(1 / 3)  # a beats b; a against c is a tie for j
    assert found["opposed"] == pytest.approx(1 / 3)  # b against c


def test_scores_are_compared_within_a_prompt_with_duels(store: DuckStore) -> None:
    a, b, c = answers(store)
    store.add([[judgement(a, 0.9, "s"), judgement(b, 0.1, "s"), judgement(c, None, "s"), *told("j", a, b, 0.8, 0.8)]])
    (found,) = ask(store, "SELECT judge, other_judge, duels, agreement FROM judge_agreement")
    assert found == {"judge": "j", "other_judge": "s", "duels": 1, "agreement": 1.0}


def test_costs_count_calls_and_questions(store: DuckStore) -> None:
    made = [
        JudgeCall("judge_call_1", "j", "judgement_1", 1, "m", None, "timed out", None, None, None, 60.0),
        JudgeCall("judge_call_2", "j", "judgement_1", 2, "m", "A", "", 100, 1, 0.5, 1.0),
        JudgeCall("judge_call_3", "j", "judgement_2", 1, "m", "B", "", 200, 1, 0.75, 1.0),
    ]
    store.add([made])
    (found,) = ask(store, "SELECT * FROM judge_costs")
    assert (found["calls"], found["questions"], found["failed"]) == (3, 2, 1)
    assert (found["prompt_tokens"], found["completion_tokens"], found["cost"]) == (300, 2, 1.25)


def test_a_second_judge_counts_no_completion_twice(tmp_path: Path) -> None:
    filled = filled_store(tmp_path / "s.duckdb")
    sql = "SELECT round, completions, judged, mean_tokens, truncated FROM round_summary"
    before = ask(filled.store, sql)
    made = [completion(filled.first, filled.train[0], k) for k in (0, 1)]
    filled.store.add([[judgement(made[0], 0.5, "another"), *told("third", made[0], made[1], 1.0, 1.0)]])
    assert ask(filled.store, sql) == before


def test_a_verdict_leads_to_its_judge_and_a_duel_to_both_answers(store: DuckStore) -> None:
    a, b, _ = answers(store)
    (first, _) = told("j", a, b, 1.0, 1.0)
    weights = checkpoint("reward")
    store.add([[first, weights, JudgeInfo("j", "reward_model", {}, [weights.weights_sha256])]])
    with store.db.read() as con:
        causes = {edge["id"] for edge in walk(con, first.id, "causes")}
    assert {a.id, b.id, "j", weights.id} <= causes
