"""Questions with names: each number worked by hand. One file holds a run for each test: none may see another's rows."""

import re
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pytest

from sparring.loop.errors import ConfigError
from sparring.loop.types import (
    Example,
    PromptOutcome,
    Update,
    UpdatePair,
)
from sparring.store.questions import QUESTIONS, answer
from sparring.store.store import DuckStore
from tests.helpers.kept_store import KeptStore
from tests.helpers.paths import ROOT
from tests.helpers.questions import asked, begin, measured, prompts
from tests.helpers.records import (
    RUN,
    completion,
    filled_store,
    outcome,
    pair,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckStore]:
    path = tmp_path_factory.mktemp("questions") / "preferences.duckdb"
    filled_store(path)
    kept = KeptStore(path)
    yield kept
    kept.close()


def test_every_question_is_a_view_and_every_view_has_a_comment(store: DuckStore) -> None:
    with store.db.read() as con:
        views = dict(con.execute("SELECT view_name, comment FROM duckdb_views() WHERE NOT internal").fetchall())
        for question in QUESTIONS.values():
            columns = {row[0] for row in con.execute(f"DESCRIBE {question.name}").fetchall()}
            assert {*question.columns, "run_id"} <= columns
    assert set(QUESTIONS) <= set(views)
    assert [name for name, comment in views.items() if not comment] == []
    assert {"pair_texts", "round_summary", "win_rates", "judge_agreement", "length_drift", "lineage"} <= set(views)


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_run_without_rows_has_no_answers(store: DuckStore, name: str) -> None:
    assert asked(store, name, "no such run") == []


def test_a_question_that_there_is_not_is_refused(store: DuckStore) -> None:
    with store.db.read() as con, pytest.raises(ConfigError, match="no question 'prompts'; ask one of results, "):
        answer(con, "prompts")


def test_results_have_a_row_a_candidate(store: DuckStore) -> None:
    columns = ("round", "candidate_id", "accepted", "pass_rate", "pass_low", "win_rate", "win_high", "win_n")
    before, better, worse = asked(store, "results", RUN, *columns)
    assert before == (0, "checkpoint_initial", True, 0.5, 0.4, 0.5, 0.6, 2)
    assert better == (1, "checkpoint_one", True, 0.75, 0.65, 0.625, 0.725, 2)
    assert worse == (2, "checkpoint_two", False, 0.25, 0.15, 0.375, 0.475, 2)


def test_what_was_measured_beside_the_loop_was_neither_accepted_nor_rejected(store: DuckStore) -> None:
    store.add([[measured("beside", "x", "win_rate", 0.75)]])
    store.add([[measured("beside", "a", "pass_rate", 0.5), measured("beside", "a", "accepted", 1.0)]])
    found = asked(store, "results", "beside", "candidate_id", "accepted", "pass_rate", "win_rate", "win_low", "win_n")
    assert sorted(found) == [("a", True, 0.5, None, None, None), ("x", None, None, 0.75, None, 8)]


def test_lengths_by_round(store: DuckStore) -> None:
    """Round 2 has answers of 3, 5, 3 and 3 tokens, one cut short; its pair is 3 over 5."""
    columns = (
        "round",
        "completions",
        "mean_tokens",
        "truncated",
        "growth",
        "chosen_ratio",
        "eval_tokens",
        "eval_growth",
    )
    assert asked(store, "length_drift", RUN, *columns) == [
        (0, None, None, None, None, None, 3.0, 1.0),
        (1, 6, 3.0, 0.0, 1.0, 1.0, 3.0, 1.0),
        (2, 4, 3.5, 0.25, pytest.approx(3.5 / 3), 0.6, 4.0, pytest.approx(4 / 3)),
    ]


def test_lengths_are_those_of_full_answers_of_the_policy(store: DuckStore) -> None:
    (p,) = prompts("lengths", 1)
    rnd = begin("lengths", [p])
    part, full = completion(rnd, p, 0), completion(rnd, p, 1, parent_id=completion(rnd, p, 0).id, token_ids=range(9))
    other = replace(completion(rnd, p, 2, token_ids=range(100)), origin="dataset", policy_id="")
    store.add([[p, rnd, part, full, other]])
    assert asked(store, "length_drift", "lengths", "completions", "mean_tokens", "p90_tokens") == [(1, 9.0, 9.0)]


LAW = ("prompts", "paired", "ties", "identical", "abstained", "filtered", "failed", "open", "holds", "found")


def test_prompts_are_conserved(store: DuckStore) -> None:
    one, two = asked(store, "pair_yield", RUN, *LAW, "share", "pairs")
    assert one == (3, 1, 1, 0, 1, 0, 0, 0, True, "", 1 / 3, 1)
    assert two == (3, 1, 0, 1, 0, 0, 1, 0, True, "", 1 / 3, 1)


def test_a_round_that_is_still_at_it_has_open_prompts(store: DuckStore) -> None:
    asked_of = prompts("open", 3)
    rnd = begin("open", asked_of)
    store.add([[*asked_of, rnd, outcome(rnd, asked_of[0], "tie")]])
    assert asked(store, "pair_yield", "open", *LAW) == [(3, 0, 1, 0, 0, 0, 0, 2, None, "2 without an outcome yet")]
    store.add([[Update("open-update", "open", 1, "dpo", rnd.policy.id, "after", 0, 1.0, {})]])
    assert asked(store, "pair_yield", "open", "holds", "found") == [
        (False, "2 without an outcome though the round learned")
    ]


def test_a_broken_law_is_flagged_with_its_reason(store: DuckStore) -> None:
    planned, (stray,) = prompts("broken", 3), prompts("stray", 1)
    rnd = begin("broken", planned)
    a, b = (completion(rnd, planned[1], k) for k in range(2))
    wrong = [
        outcome(rnd, planned[0], "paired"),  # without a pair
        outcome(rnd, planned[1], "tie"),  # with a pair
        outcome(rnd, planned[2], "tie"),
        PromptOutcome("again", "broken", 1, planned[2].id, "tie"),
        outcome(rnd, stray, "tie"),
    ]
    store.add([[*planned, stray, rnd, a, b, pair(rnd, a, b), *wrong]])
    ((holds, found),) = asked(store, "pair_yield", "broken", "holds", "found")
    assert holds is False
    assert found.split("; ") == [
        "1 outcomes of prompts that the round did not plan",
        "1 prompts with several outcomes",
        "1 paired, but without a pair or an example",
        "1 not paired, but with a pair or an example",
    ]


def test_what_was_trained_on(store: DuckStore) -> None:
    columns = ("round", "algorithm", "prompts", "pairs", "examples", "before_id", "after_id", "accepted", "loss")
    assert asked(store, "trained_on", RUN, *columns) == [
        (1, "dpo", 1, 1, 0, "checkpoint_initial", "checkpoint_one", True, 0.625),
        (2, "dpo", 1, 1, 0, "checkpoint_one", "checkpoint_two", False, 0.5),
    ]
    first, second = asked(store, "trained_rows", RUN)
    assert (first["kind"], first["prompt"], first["value"]) == ("pair", "Name a bird.", 1.0)
    assert (second["round"], second["value"], second["update_id"]) == (2, 0.5, "update_2")
    assert second["completion_id"].endswith("_0") and second["rejected_id"].endswith("_1")


def test_references_are_those_of_the_update_or_else_of_the_round(store: DuckStore) -> None:
    rounds = [begin("references", index=k) for k in (1, 2, 3)]
    free, mixed = (
        Update(f"u{k}", "references", k, "dpo", "b", f"a{k}", 0, 1.0, {}, r) for k, r in ((1, ()), (2, "xy"))
    )
    store.add([[*rounds, free, mixed]])
    old = {"update_id": ["u3"], "run_id": ["references"], "round": pa.array([3], pa.int32()), "algorithm": ["dpo"]}
    old |= {"before_id": ["b"], "after_id": ["a3"], "n_examples": pa.array([0], pa.int32()), "seconds": [1.0]}
    store.ingest({"updates": pa.table(old | {"metrics": ["{}"]})})  # of a time when they were not kept
    found = asked(store, "trained_on", "references", "round", "reference_ids")
    assert found == [(1, []), (2, ["x", "y"]), (3, ["checkpoint_references-initial"])]


def test_examples_and_named_pairs_are_trained_on(store: DuckStore) -> None:
    ps = prompts("named", 2)
    rnd = begin("named", ps)
    a, b = (completion(rnd, ps[0], k) for k in range(2))
    named = Update("reward-update", "reward-run", 0, "reward", "none", "head", 1, 1.0, {})
    store.add([[*ps, a, b, pair(rnd, a, b), named, UpdatePair("up", "reward-update", pair(rnd, a, b).id)]])
    learned = Update("group-update", "named-2", 1, "grpo", "x", "y", 2, 1.0, {})
    store.add([[learned, *(Example(f"ex{k}", "named-2", 1, ps[k].id, a.id, 0.5 * k, 1.0, "group") for k in (0, 1))]])
    assert asked(store, "trained_on", "reward-run", "prompts", "pairs", "examples") == [(1, 1, 0)]
    assert asked(store, "trained_on", "named-2", "prompts", "pairs", "examples") == [(2, 0, 2)]
    rows = asked(store, "trained_rows", "named-2", "kind", "prompt", "value", "rejected_id")
    assert rows == [("example", "named train 0", 0.0, None), ("example", "named train 1", 0.5, None)]
    assert asked(store, "trained_rows", "reward-run", "kind", "value") == [("pair", 1.0)]


def test_rows_of_all_runs_come_where_no_run_is_named(store: DuckStore) -> None:
    store.add([[measured("extra", "e", "kl", 1.0)]])
    runs = {run for (run,) in asked(store, "results", None, "run_id")}
    assert {RUN, "extra"} <= runs
    with store.db.read() as con:
        assert answer(con, "results", limit=2).num_rows == 2


PAGE = (ROOT / "docs" / "questions.md").read_text()


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_page_names_every_question_and_its_own_columns(store: DuckStore, name: str) -> None:
    (section,) = (part for part in PAGE.split("\n## ")[1:] if name in part.split("\n")[0].split(" "))
    with store.db.read() as con:
        columns = {row[0] for row in con.execute(f"DESCRIBE {name}").fetchall()}
    told_of = set(re.findall(r"`([a-z][a-z0-9_]*)`", section))
    if name != "round_summary":  # whose columns are many and have their names from the steps
        left_out = columns - told_of - {"run_id", "round", "chosen_id", "rejected_id", "prompt_id", "pair_id"}
        assert left_out - {"judge", "other_judge", "model", "algorithm"} == set()
    assert f"`{name}`" in PAGE
