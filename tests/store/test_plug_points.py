"""Queries in the place of parts: what is refused before a run; the shipped ones do as the built-in builders."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sparring.flows.compose.sql_plugs import broken_by_query, chooser, pairs_by
from sparring.loop.errors import ConfigError, StepError
from sparring.loop.judgements import mean_scores
from sparring.loop.pairing.pipeline import pairing
from sparring.loop.types import Experience, Pair, PromptOutcome, Round
from sparring.store.plug_points import PAIRS, PROMPTS, STOP, Plug, check_query
from sparring.store.store import DuckStore
from tests.helpers.experience import ROUND, experience
from tests.helpers.paths import ROOT
from tests.helpers.records import completion, evaluations, filled_store, judgement

SHIPPED = ROOT / "examples" / "queries"
PLUGS = {"best_worst": PAIRS, "all_margin": PAIRS, "disputed_prompts": PROMPTS, "stop_when_longer": STOP}
REFUSED: list[tuple[Plug, str, str]] = [
    (PAIRS, "SELEKT 1", "pair.query: the query failed"),
    (PAIRS, "SELECT 1; SELECT 2", "it has 2 statements"),
    (PAIRS, "DELETE FROM pairs", "DELETE is refused"),
    (PAIRS, "SELECT chosen_id FROM pairs", "without rejected_id; expected chosen_id VARCHAR, rejected_id VARCHAR"),
    (PAIRS, "SELECT chosen_id, rejected_id, round FROM pairs", "pair.query also returns round"),
    (PAIRS, "SELECT chosen_id, 1 AS rejected_id FROM pairs", "rejected_id is INTEGER; expected VARCHAR: cast it"),
    (PAIRS, "SELECT chosen_id, rejected_id, 'a' AS margin FROM pairs", "margin is VARCHAR; expected DOUBLE"),
    (PAIRS, "SELECT chosen_id, rejected_id FROM pears", "Table with name pears does not exist"),
    (
        PAIRS,
        "SELECT chosen_id, rejected_id FROM pairs WHERE run_id = $name",
        "$name is not a parameter; expected one of $run",
    ),
    (PAIRS, "SELECT a AS chosen_id, a AS rejected_id FROM read_csv('x.csv')", "pair.query: "),
    (PROMPTS, "SELECT messages AS prompt_id FROM prompts", "prompt_id is JSON; expected VARCHAR"),
    (STOP, "SELECT 1 AS found, 'too long' AS message", "without bound"),
]


@pytest.mark.parametrize(("plug", "sql", "words"), REFUSED)
def test_what_cannot_be_asked_is_refused(plug: Plug, sql: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_query(sql, plug)
    assert words in str(refused.value)


@pytest.mark.parametrize("name", PLUGS)
def test_the_shipped_queries_pass(name: str) -> None:
    assert {file.stem for file in SHIPPED.glob("*.sql")} == set(PLUGS)
    check_query((SHIPPED / f"{name}.sql").read_text(), PLUGS[name])


def drawn(seed: int) -> Experience:
    """Forty prompts with ties, equal texts, silent judges and single answers among them."""
    draw = random.Random(seed)
    return experience(
        {
            f"p{i}": [
                (draw.choice(["a", "b", "c", "d"]), draw.choice([0.0, 0.125, 0.5, 0.75, 1.0, None]))
                for _ in range(draw.randint(1, 5))
            ]
            for i in range(40)
        }
    )


@pytest.mark.parametrize(("name", "options"), [("best_worst", {}), ("all_margin", {"min_margin": 0.25})])
def test_a_shipped_query_pairs_as_the_builder_does(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    store, query = DuckStore(tmp_path / "a.duckdb"), (SHIPPED / f"{name}.sql").read_text()
    seen = drawn(0)
    store.add([[g.prompt for g in seen.groups], [c for g in seen.groups for c in g.completions], seen.judgements])
    wanted = pairing(name, **options)(ROUND, seen)
    made = _asking(store, query)(ROUND, seen)
    assert _pairs(made) == _pairs(wanted)
    assert len(_pairs(wanted)) > 10
    # Prompts end as with the builder; where it finds a tie, the query has named nothing.
    became = {"tie": "filtered"}
    assert _outcomes(made) == {p: became.get(o, o) for p, o in _outcomes(wanted).items()}


def _asking(store: DuckStore, query: str) -> Any:
    return pairing("sql", mean_scores, pairs_by(store, query, "judge"), query=query)


def _pairs(made: Any) -> list[Pair]:
    pairs = [replace(row, builder="") for row in made if isinstance(row, Pair)]
    return sorted(pairs, key=lambda p: p.id)


def _outcomes(made: Any) -> dict[str, str]:
    return {row.prompt_id: row.outcome for row in made if isinstance(row, PromptOutcome)}


NAMED = "SELECT 'checkpoint_policy/p/{}' AS chosen_id, 'checkpoint_policy/{}' AS rejected_id"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (
            NAMED.format(0, "q/0"),
            "names checkpoint_policy/q/0 in a pair of a prompt whose answers are checkpoint_policy/p/0, ",
        ),
        (NAMED.format(9, "p/0"), "names checkpoint_policy/p/9, which is not an answer in round 3 of run"),
        (NAMED.format(0, "p/2"), "which have the same text"),
        (NAMED.format(0, "p/3"), "names checkpoint_policy/p/3, which has no score from the judge, and gives no margin"),
        (f"{NAMED.format(0, 'p/1')} FROM range(2)", "names 1 of its 2 pairs more than once"),
        (
            "SELECT 'checkpoint_policy/p/0' AS chosen_id, NULL::VARCHAR AS rejected_id",
            "a row whose rejected_id is NULL",
        ),
        ("SELECT error('no luck') AS chosen_id, 'b' AS rejected_id", "pair.query failed: "),
    ],
)
def test_pairs_that_cannot_be_are_refused(tmp_path: Path, query: str, words: str) -> None:
    store = DuckStore(tmp_path / "a.duckdb")
    seen = experience({"p": [("a", 1.0), ("b", 0.0), ("a", 0.5), ("c", None)], "q": [("x", 0.0), ("y", 1.0)]})
    store.add([[g.prompt for g in seen.groups]])
    with pytest.raises(StepError) as refused:
        _asking(store, query)(ROUND, seen)
    assert words in str(refused.value)


def test_a_query_may_say_how_sure_it_is(tmp_path: Path) -> None:
    store = DuckStore(tmp_path / "a.duckdb")
    seen = experience({"p": [("a", 1.0), ("b", 0.0), ("c", None)]})
    store.add([[g.prompt for g in seen.groups]])
    sample = "'checkpoint_policy/p/1' AS reference_sample_id"
    query = f"{NAMED.format(2, 'p/0')}, 0.25 AS p_chosen, 3 AS margin, 2 AS weight, {sample}"
    (made,) = _pairs(_asking(store, query)(ROUND, seen))
    assert (made.p_chosen, made.margin, made.weight, made.reference_sample_id) == (
        0.25,
        3.0,
        2.0,
        "checkpoint_policy/p/1",
    )
    (made,) = _pairs(_asking(store, NAMED.format(0, "p/1"))(ROUND, seen))
    assert (made.p_chosen, made.margin, made.weight, made.reference_sample_id) == (1.0, 1.0, 1.0, None)


def test_disputed_prompts_come_first(tmp_path: Path) -> None:
    filled = filled_store(tmp_path / "a.duckdb")
    bird, yes, _ = filled.train
    asked = chooser(filled.store, (SHIPPED / "disputed_prompts.sql").read_text(), "rules")
    assert asked is not None
    third = replace(filled.second, index=3)
    assert asked(third) == []  # there is one judge
    other = [judgement(completion(filled.first, p, k), v, "other") for p, k, v in [(bird, 0, 0.0), (bird, 1, 1.0)]]
    agreeing = [judgement(completion(filled.first, yes, k), 0.5 - k, "other") for k in (0, 1)]
    filled.store.add([other, agreeing])
    assert asked(third) == [bird.id]  # `yes` is a tie for one of them, which is no opposite
    assert asked(filled.first) == []  # of earlier rounds only


def test_a_query_stops_a_run_and_says_why(tmp_path: Path) -> None:
    filled = filled_store(tmp_path / "a.duckdb")
    query = (SHIPPED / "stop_when_longer.sql").read_text()
    assert broken_by_query(filled.store, filled.second, query) is None  # 4 tokens after 3: 1.33 times
    third: Round = replace(filled.second, index=3)
    longer = {"mean_tokens": 6.0, "win_rate": 0.25}
    filled.store.add([evaluations(third, filled.learned[1], longer)])
    broken = broken_by_query(filled.store, third, query)
    said = "answers are 2.00 times as long as at first, and the win rate is 0.250 after 0.375"
    assert broken == ("query", 1.5, (2.0, said))
    assert broken_by_query(filled.store, third, None) is None
