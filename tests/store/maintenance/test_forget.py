"""What is forgotten is in no file of the folder any more, whole or in pieces, and a tombstone says so."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sparring.loop.errors import DataError, StoreError
from sparring.loop.types import Example, JudgeCall, JudgeInfo, Judgement, Update, UpdatePair
from sparring.store.maintenance.check import check
from sparring.store.maintenance.forget import forget, plan
from sparring.store.maintenance.parts import check_parts, parts_of
from sparring.store.maintenance.prompt_rows import holding
from sparring.store.maintenance.rebuild import rebuild
from sparring.store.maintenance.tombstones import refuse_forgotten
from sparring.store.parts import parts_folder
from sparring.store.publish import publish
from sparring.store.store import DuckStore
from tests.helpers.records import (
    RUN,
    TRAIN,
    Filled,
    checkpoint,
    completion,
    filled_store,
    judgement,
    outcome,
    pair,
    prompt,
    round_of,
)
from tests.helpers.store_files import files_with

SECRET = "Ada Vantongerloo-Quist lives at 7 Zwijnaardse Steenweg"
MARKS = ("Vantongerloo", "Zwijnaardse", "QuistSays", "QuistJudged", "QuistReplied", "QuistMeant")
GONE = prompt(SECRET, note="QuistMeant")


def with_a_secret(path: Path) -> Filled:
    """The filled store, and a third round that plays one more prompt and learns from it; a reward model does, too."""
    filled = filled_store(path)
    store, two = filled.store, filled.learned[1]
    rnd = round_of(3, two, filled.initial, [GONE, *TRAIN[:1]])
    after, reward = checkpoint("three", two), replace(checkpoint("reward", run="reward-1"), parent_id=None)
    good, bad = completion(rnd, GONE, 0, text="QuistSays yes"), completion(rnd, GONE, 1, text="no")
    kept = completion(rnd, TRAIN[0], 0, text="a tit")
    duel = Judgement("duel_1", "llm", good.id, bad.id, "", "", 0, 0.9, "QuistJudged it")
    call = JudgeCall("call_1", "llm", "duel_1", 1, "m", "QuistReplied", "", 1, 1, None, 0.5)
    preferred = pair(rnd, good, bad)
    learned = Update("update_3", RUN, 3, "dpo", two.id, after.id, 2, 1.0, {})
    trained = replace(learned, id="update_r", run="reward-1", round=1, before_id=filled.initial.id, after_id=reward.id)
    store.add([[replace(filled.info, id="reward-1", name="reward", kind="reward"), GONE, rnd, good, bad, kept]])
    store.add([[JudgeInfo("llm", "llm", {}), duel, judgement(good, 1.0), judgement(bad, None), judgement(kept, 1.0)]])
    store.add([[call, preferred, Example("example_1", RUN, 3, GONE.id, good.id, 1.0, 1.0, "group")]])
    store.add([[outcome(rnd, GONE, "paired"), outcome(rnd, TRAIN[0], "tie"), after, reward, learned, trained]])
    store.add([[UpdatePair("update_pair_1", "update_r", preferred.id), checkpoint("four", after)]])
    return filled


def test_nothing_of_it_is_left_in_any_file(tmp_path: Path) -> None:
    store = with_a_secret(tmp_path / "a.duckdb").store
    for name in ("a.damaged-1.duckdb", "a.compacting.duckdb"):  # as rebuilds and kills leave them
        shutil.copy(publish(store.db), tmp_path / name)
    (parts_folder(store.db.path) / "prompts" / "1.parquet.partial").write_text(SECRET)
    before = files_with(tmp_path, MARKS)
    assert {"a.duckdb", "a.read.duckdb", "a.damaged-1.duckdb", "a.compacting.duckdb", "1.parquet.partial"} < before
    ids = (GONE.id, completion(round_of(3, checkpoint("two"), checkpoint("initial"), ()), GONE).id)
    done = forget(store.db, [GONE.id], "asked by the person", "me")
    assert files_with(tmp_path, MARKS) == set()
    assert files_with(tmp_path, ids[1:]) == set()
    tombstoned = {"a.duckdb", "a.read.duckdb"}
    assert {name for name in files_with(tmp_path, ids[:1]) if not name.endswith(".parquet")} == tombstoned
    assert done.removed == {
        "prompts": 1, "completions": 2, "judgements": 3, "judge_calls": 1, "pairs": 1, "examples": 1, "outcomes": 1,
        "update_pairs": 1,
    }  # fmt: skip
    assert [f for f in [*check(store.db)[1], *check_parts(store.db)] if not f.ok or f.remedy] == []


def test_what_came_of_others_stays_and_what_learned_is_named(tmp_path: Path) -> None:
    filled = with_a_secret(tmp_path / "a.duckdb")
    store = filled.store
    done = plan(store.db, [GONE.id])
    assert (done.rounds, done.run_ids, done.update_ids) == (1, [RUN, "reward-1"], ["update_3", "update_r"])
    # three learned from it, four came of three, and the reward model learned from the pair; one and two did not
    assert done.checkpoint_ids == ["checkpoint_four", "checkpoint_reward", "checkpoint_three"]
    assert forget(store.db, [GONE.id], "why", "me") == done
    with store.db.read() as con:
        rounds = con.execute("SELECT prompt_ids FROM rounds ORDER BY round").fetchall()
        counts = con.execute("SELECT (SELECT count(*) FROM completions), (SELECT count(*) FROM pairs)").fetchall()
        (stone,) = con.execute("SELECT * EXCLUDE (forgotten_at) FROM forgotten").fetchall()
        values = con.execute("SELECT max(abs(value)) FROM evaluations").fetchall()
    assert rounds == [([p.id for p in TRAIN],)] * 2 + [([TRAIN[0].id],)]
    assert counts == [(16 + 1, 2)]
    assert stone[:3] == (GONE.id, "why", "me")
    assert json.loads(stone[3]) == done.removed
    assert stone[4:] == (done.run_ids, done.update_ids, done.checkpoint_ids)
    assert values == [(4.0,)]  # what was measured stays


def test_forgetting_again_finishes_what_was_cut_off(tmp_path: Path) -> None:
    store = with_a_secret(tmp_path / "a.duckdb").store
    kept = {p: p.read_bytes() for p in parts_folder(store.db.path).rglob("*.parquet")}
    forget(store.db, [GONE.id], "", "me")
    for path, was in kept.items():  # as a kill before the parts were written anew leaves them
        path.write_bytes(was)
    assert files_with(tmp_path, MARKS) != set()
    again = forget(store.db, [GONE.id], "", "me")
    assert (again.prompt_ids, again.again, again.removed, again.run_ids) == ([], [GONE.id], {}, [RUN, "reward-1"])
    assert files_with(tmp_path, MARKS) == set()
    store.db.path.unlink()
    rebuild(store.db)
    with store.db.read() as con:
        assert con.execute("SELECT count(*), any_value(prompt_id) FROM forgotten").fetchall() == [(1, GONE.id)]


def test_text_is_found_wherever_it_came_up(tmp_path: Path) -> None:
    filled = with_a_secret(tmp_path / "a.duckdb")
    db, others = filled.store.db, [p.id for p in TRAIN]
    assert [holding(db, mark) for mark in MARKS] == [[GONE.id]] * len(MARKS)
    assert holding(db, "Name a bird") == [others[0]]
    assert holding(db, "nowhere to be found") == []
    quoted = prompt('She said "Quist\nhere"')
    filled.store.add([[quoted]])
    assert holding(db, 'said "Quist\nhere"') == [quoted.id]
    assert sorted(holding(db, "one two")) == [others[2]]  # two answers say so


def test_it_does_not_come_back(tmp_path: Path) -> None:
    store = with_a_secret(tmp_path / "a.duckdb").store
    forget(store.db, [GONE.id], "asked", "me")
    with store.db.read() as con:
        con.execute(f"CREATE TEMP TABLE incoming AS SELECT '{TRAIN[0].id}' AS prompt_id")
        refuse_forgotten(con, "incoming")
        con.execute(f"INSERT INTO incoming VALUES ('{GONE.id}')")
        with pytest.raises(DataError, match=rf"{GONE.id} was forgotten on 20.* by me: asked; "):
            refuse_forgotten(con, "incoming")


def test_an_id_that_is_none_and_parts_that_cannot_be_read(tmp_path: Path) -> None:
    store = with_a_secret(tmp_path / "a.duckdb").store
    with pytest.raises(StoreError, match="has no prompt 'prompt_x'"):
        forget(store.db, ["prompt_x", GONE.id], "", "me")
    part = parts_of(parts_folder(store.db.path))["pairs"][-1]
    part.write_bytes(b"PAR1")
    with pytest.raises(StoreError, match=r"1 parts are damaged .*, the first: .*pairs"):
        forget(store.db, [GONE.id], "", "me")
    assert (
        DuckStore(store.db.path)
        .experience(round_of(3, checkpoint("two"), checkpoint("initial"), [GONE]), "rules")
        .groups
    )
