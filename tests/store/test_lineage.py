"""Where rows come from and what came of them, on the run of tests/helpers/records.py and on rows made by hand."""

from pathlib import Path
from typing import Any

import pytest

from sparring.loop.errors import StoreError
from sparring.loop.types import Example, JudgeInfo, Judgement, Round
from sparring.store.edges import CAUSES, EFFECTS, KINDS
from sparring.store.lineage import Direction, kind_of, walk
from sparring.store.provenance import provenance
from sparring.store.records import TABLES
from sparring.store.store import DuckStore
from tests.helpers.records import JUDGE, Filled, completion, filled_store, judgement, pair, prompt, round_of, update


@pytest.fixture
def filled(tmp_path: Path) -> Filled:
    return filled_store(tmp_path / "a.duckdb")


def steps(store: DuckStore, id: str, towards: Direction, limit: int | None = 20) -> list[dict[str, Any]]:
    with store.db.read() as con:
        return walk(con, id, towards, limit)


def ways(found: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    return {(step["of"], step["role"], step["id"]) for step in found}


def noted(tmp_path: Path, **changes: Any) -> tuple[DuckStore, Round]:
    """The same run in a store where the round says by whose answers it was paired."""
    filled = filled_store(tmp_path / "noted.duckdb")
    rnd = round_of(3, filled.learned[0], filled.initial, filled.train, judge=JUDGE, **changes)
    filled.store.add([[rnd]])
    return filled.store, rnd


def test_a_prompt_leads_to_the_numbers_that_it_shaped(filled: Filled) -> None:
    bird, first = filled.train[0], filled.first
    good, bad = (completion(first, bird, k).id for k in (0, 1))
    made = f"pair_{good}_{bad}"
    found = ways(steps(filled.store, bird.id, "effects"))
    after = filled.learned[0].id
    assert {
        (bird.id, "completion", good), (bird.id, "completion", bad), (bird.id, "outcome", f"outcome_1_{bird.id}"),
        (good, "judgement", f"judgement_rules_{good}"), (bad, "judgement", f"judgement_rules_{bad}"),
        (good, "chosen in pair", made), (made, "update", "update_1"), ("update_1", "after", after),
        (after, "evaluation", "evaluation_1_win_rate"),
    } <= found  # fmt: skip
    assert not {id for _, _, id in found} & {completion(first, other, 0).id for other in filled.train[1:]}
    assert steps(filled.store, bird.id, "causes") == []


def test_a_number_leads_back_to_the_prompts(filled: Filled) -> None:
    bird, first = filled.train[0], filled.first
    good, bad = (completion(first, bird, k).id for k in (0, 1))
    made, one = f"pair_{good}_{bad}", filled.learned[0].id
    found = ways(steps(filled.store, "evaluation_1_win_rate", "causes"))
    assert found == {
        ("evaluation_1_win_rate", "candidate", one), ("evaluation_1_win_rate", "rival", filled.initial.id),
        (one, "update", "update_1"), ("update_1", "pair", made),
        (made, "chosen", good), (made, "rejected", bad), (min(good, bad), "prompt", bird.id),
    }  # fmt: skip


def test_a_kl_leads_back_to_the_answer_along_which_it_was_taken(filled: Filled) -> None:
    (kl,) = filled.store.db.rows("SELECT divergence_id AS id, completion_id FROM divergences ORDER BY ALL LIMIT 1")
    assert (kl["id"], "completion", kl["completion_id"]) in ways(steps(filled.store, kl["id"], "causes"))


def test_labels_say_what_a_row_is(filled: Filled) -> None:
    bird = filled.train[0]
    good = completion(filled.first, bird, 0).id
    labels = {step["id"]: step["label"] for step in steps(filled.store, bird.id, "effects")}
    assert labels[good] == "a robin"
    assert labels[f"judgement_rules_{good}"] == "rules, 1.0"
    assert labels["update_1"] == "round 1: dpo on 1 rows"
    assert labels["evaluation_1_win_rate"] == "round 1: win_rate 0.625"
    two = filled.train[2]
    (silent,) = [s for s in steps(filled.store, two.id, "effects") if s["label"] == "rules, no answer"]
    assert silent["of"] == completion(filled.first, two, 1).id


def test_a_pair_is_caused_by_what_the_judge_of_its_round_said(tmp_path: Path) -> None:
    store, rnd = noted(tmp_path)
    of = prompt("Which?")
    one, two = (completion(rnd, of, k) for k in (0, 1))
    said = [judgement(one, 1.0), judgement(two, 0.0)]
    later = [judgement(one, 0.0, "later"), judgement(two, None, "later")]
    made = pair(rnd, one, two)
    example = Example("example_a", rnd.run, rnd.index, of.id, two.id, 0.0, 1.0, "group")
    store.add([[of, one, two, *said, *later, made, example]])
    for row, answers in ((made.id, said), ("example_a", said[1:])):
        judged = {step["id"] for step in steps(store, row, "causes") if step["kind"] == "judgement"}
        assert judged == {j.id for j in answers}
        for j in (*said, *later):
            effects = {step["id"] for step in steps(store, j.id, "effects")}
            assert (row in effects) == (j in answers)
    with store.db.read() as con:
        edges = set(con.execute("SELECT id, cause_id FROM lineage WHERE cause_kind = 'judgement'").fetchall())
    assert {(made.id, j.id) for j in said} | {("example_a", said[1].id)} == edges


def test_a_duel_leads_to_both_answers_its_judge_and_its_model(tmp_path: Path) -> None:
    store, rnd = noted(tmp_path)
    of = prompt("Which?")
    one, two = (completion(rnd, of, k) for k in (0, 1))
    duel = Judgement("judgement_d", "sage", one.id, two.id, "m", "truth", 1, 0.75)
    store.add([[of, one, two, duel, JudgeInfo("sage", "reward_model", {}, [rnd.initial.weights_sha256])]])
    found = steps(store, duel.id, "causes")
    assert {
        (duel.id, "completion", one.id), (duel.id, "rival", two.id), (duel.id, "judge", "sage"),
        ("sage", "model", rnd.initial.id),
    } <= ways(found)  # fmt: skip
    (shown,) = [step for step in steps(store, two.id, "effects") if step["id"] == duel.id]
    assert (shown["role"], shown["label"]) == ("judgement as rival", "sage, m, truth, shown second, 0.75")
    (judged,) = steps(store, "sage", "effects")
    assert judged["id"] == duel.id


def test_of_many_the_first_are_followed_and_the_rest_counted(tmp_path: Path) -> None:
    store, rnd = noted(tmp_path)
    of = prompt("Which?")
    answers = sorted((completion(rnd, of, k) for k in range(7)), key=lambda c: c.id)
    store.add([[of, *answers, *(judgement(a, 1.0) for a in answers)]])
    found = [step for step in steps(store, of.id, "effects", 3) if step["kind"] == "completion"]
    assert [(step["id"], step["left_out"]) for step in found] == [
        (answers[0].id, 0),
        (answers[1].id, 0),
        (answers[2].id, 4),
    ]
    judged = [step for step in steps(store, of.id, "effects", 3) if step["kind"] == "judgement"]
    assert [(step["of"], step["left_out"]) for step in judged] == [(a.id, 0) for a in answers[:3]]
    assert len([step for step in steps(store, of.id, "effects", 7) if step["kind"] == "completion"]) == 7
    assert len([step for step in steps(store, of.id, "effects", None) if step["kind"] == "judgement"]) == 7


def test_a_walk_ends_at_checkpoints_unless_asked_for_everything(filled: Filled) -> None:
    one, two = filled.learned
    near = {step["id"] for step in steps(filled.store, "update_2", "causes")}
    assert one.id in near and "update_1" not in near
    far = {step["id"] for step in steps(filled.store, "update_2", "causes", None)}
    assert near < far and {"update_1", filled.initial.id, filled.train[0].id} <= far
    down = {step["id"] for step in steps(filled.store, "update_1", "effects", None)}
    assert {one.id, two.id, "update_2", "evaluation_2_win_rate"} <= down


def test_every_kind_of_row_is_found_by_its_id_and_walked_from(filled: Filled) -> None:
    with filled.store.db.read() as con:
        for kind, (table, key, _) in KINDS.items():
            for (id,) in con.execute(f"SELECT {key} FROM {table} LIMIT 1").fetchall():
                assert kind_of(con, id) == kind
                assert isinstance(walk(con, id, "causes") + walk(con, id, "effects"), list)
        with pytest.raises(StoreError, match="no row has the id 'pair_0'"):
            walk(con, "pair_0", "causes")


def test_every_table_of_the_records_can_be_walked_and_every_edge_runs(filled: Filled) -> None:
    keys = {(table, key) for table, key, _ in KINDS.values()}
    unnamed = {"update_pairs", "removals", "run_models"}  # they have the id of another row
    assert {(name, columns[0][0]) for name, columns in TABLES.values() if name not in unnamed} == keys
    with filled.store.db.read() as con:
        for edge in (*CAUSES, *EFFECTS):
            con.execute(f"CREATE OR REPLACE TEMP TABLE a AS {(edge.via or 'SELECT 1').format(ids=repr('it'))}")
            assert con.execute(edge.find.format(ids=repr("it"))).fetchall() == []


def test_a_quote_in_an_id_is_no_sql(tmp_path: Path) -> None:
    store, _ = noted(tmp_path)
    store.add([[JudgeInfo("it's '); DROP TABLE judges; --", "rules", {})]])
    with store.db.read() as con:
        assert kind_of(con, "it's '); DROP TABLE judges; --") == "judge"
        assert walk(con, "it's '); DROP TABLE judges; --", "effects") == []


def test_a_checkpoint_names_every_prompt_and_judge_that_shaped_it(filled: Filled) -> None:
    one, two = filled.learned
    store, bird = filled.store, filled.train[0].id
    rnd = round_of(3, two, filled.initial, filled.train, judge="sage")
    answers = [completion(rnd, p, k) for p in filled.train[1:] for k in (0, 1)]
    made = [pair(rnd, answers[0], answers[1]), pair(rnd, answers[2], answers[3])]
    three = filled.learned[1].__class__("checkpoint_three", rnd.run, "/nowhere/three", two.id, "sha-three")
    store.add([[rnd, *answers, *made, three, update(rnd, three, 2)]])
    with store.db.read() as con:
        shaped, by_one, nothing = (provenance(con, id) for id in (three.id, one.id, filled.initial.id))
    # Checkpoint two was made of the initial policy by hand: its parent says so, and `three` goes back to it.
    assert [(row["round"], row["judge"], row["rows_learned"], row["prompt_ids"]) for row in shaped] == [
        (2, None, 1, [bird]),
        (3, "sage", 2, sorted(p.id for p in filled.train[1:])),
    ]
    assert [(row["run"], row["config_sha256"], row["versions"]) for row in by_one] == [
        ("hand", "sha-config", {"sparring": "0.1.0"})
    ]
    assert nothing == []
