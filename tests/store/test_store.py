import hashlib
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from sparring.loop.errors import StoreError, StoreTooNew
from sparring.loop.types import Prompt
from sparring.store.db import Database, migrations
from sparring.store.store import DuckStore
from tests.helpers.paths import ROOT
from tests.helpers.records import (
    JUDGE,
    RUN,
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


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    return filled_store(tmp_path_factory.mktemp("store") / "preferences.duckdb")


def ask(store: DuckStore, sql: str) -> list[tuple[Any, ...]]:
    with store.db.read() as con:
        return con.execute(sql).fetchall()


def prompt_ids(prompts: list[Prompt]) -> list[str]:
    return [p.id for p in prompts]


def test_migrations_are_applied_once_and_recorded(tmp_path: Path) -> None:
    folder = ROOT / "store" / "migrations"
    files = sorted(folder.glob("*.sql"))
    for _ in range(2):  # the second store object opens a file that is migrated already
        DuckStore(tmp_path / "a.duckdb").add([[prompt("Hello?")]])
    found = ask(DuckStore(tmp_path / "a.duckdb"), "SELECT version, name, sha256 FROM schema_version")
    assert found == [(int(f.stem[:4]), f.stem, hashlib.sha256(f.read_bytes()).hexdigest()) for f in files]


def test_a_newer_store_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    DuckStore(path).add([[prompt("Hello?")]])
    with duckdb.connect(str(path)) as con:
        con.execute("INSERT INTO schema_version (version, name, sha256) VALUES (99, '0099_later', 'x')")
    before = path.read_bytes()
    with pytest.raises(
        StoreTooNew, match=f"schema version 99, this sparring knows up to {migrations()[-1][0]}; install"
    ):
        DuckStore(path).add([[prompt("More?")]])
    with pytest.raises(StoreTooNew, match="99"):
        DuckStore(path).run()
    assert path.read_bytes() == before


def test_the_file_is_in_the_format_of_1_5(filled: Filled) -> None:
    with filled.store.db.read() as con:
        tags = con.execute(
            "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = current_database()"
        ).fetchall()
    assert tags == [("v1.5.0+",)]


def test_making_a_record_twice_gives_one_row(tmp_path: Path) -> None:
    store = DuckStore(tmp_path / "a.duckdb")
    assert store.add([[prompt("Hello?"), prompt("Bye?")], [prompt("Hello?")]]) == 2
    assert store.add([[prompt("Bye?", max_words=2)]]) == 1  # another rule is another question
    assert ask(store, "SELECT count(*) FROM prompts") == [(3,)]


def test_a_chunk_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    store, initial = DuckStore(tmp_path / "a.duckdb"), checkpoint("initial")
    rnd = round_of(1, initial, initial, [prompt("Hello?")])
    good, bad = completion(rnd, prompt("Hello?"), 0), completion(rnd, prompt("Hello?"), 1)
    # the last record of the second chunk breaks a CHECK: an answer cannot be preferred to itself
    chunks = [[prompt("Hello?")], [good, bad, pair(rnd, good, bad), pair(rnd, good, good)], [prompt("Never?")]]
    with pytest.raises(duckdb.ConstraintException, match="chosen_id"):
        store.add(chunks)
    counts = "SELECT (SELECT count(*) FROM prompts), (FROM completions SELECT count(*)), (FROM pairs SELECT count(*))"
    assert ask(store, counts) == [(1, 0, 0)]
    assert store.add(chunks[:1]) == 0  # and the store can be used further


def test_what_the_records_say_comes_back(filled: Filled) -> None:
    store, train, rnd = filled.store, filled.train, filled.first
    assert store.run() == store.run("hand") == store.run(RUN) == filled.info
    assert store.run("another") is None
    assert store.last_round(RUN) == filled.second
    assert store.updated(rnd) == filled.learned[0]
    groups = store.experience(rnd, JUDGE).groups
    assert [g.prompt.id for g in groups] == prompt_ids([*train])
    assert groups[0].prompt.messages == train[0].messages
    assert groups[0].prompt.meta == {"max_words": 3}
    assert [c.text for g in groups for c in g.completions] == ["a robin", "no", "yes", "yes indeed"] + [
        "one two",
        "one two three",
    ]


def test_tokens_and_logprobs_come_back_exactly(tmp_path: Path) -> None:
    store, initial, hello = DuckStore(tmp_path / "a.duckdb"), checkpoint("initial"), prompt("Hello?")
    rnd = round_of(1, initial, initial, [hello])
    tokens, logprobs = (0, 2**31 - 1, 128_000), np.array([-0.1, -1e-7, -17.333333], np.float32)
    store.add([[hello, completion(rnd, hello, 0, token_ids=tokens, logprobs=logprobs)]])
    store.add([[completion(rnd, hello, 1, token_ids=(), logprobs=())]])  # a blank answer has no tokens
    with store.db.read() as con:
        found = con.sql("SELECT token_ids, logprobs FROM completions ORDER BY sample").to_arrow_table()
    assert str(found.schema.field("token_ids").type.value_type) == "int32"
    assert str(found.schema.field("logprobs").type.value_type) == "float"
    assert found["token_ids"].to_pylist() == [[0, 2147483647, 128000], []]
    assert np.array(found["logprobs"][0].values, np.float32).tobytes() == logprobs.tobytes()


def test_what_is_missing(tmp_path: Path) -> None:
    store, initial = DuckStore(tmp_path / "a.duckdb"), checkpoint("initial")
    a, b, c = prompt("A?"), prompt("B?"), prompt("C?")
    rnd = round_of(1, initial, initial, [c, a, b])  # asked for in an order of their own
    store.add([[a, b, c, initial]])
    assert prompt_ids(store.unsampled(rnd)) == [c.id, a.id, b.id]
    store.add([[completion(rnd, a), outcome(rnd, b, "failed")]])
    assert prompt_ids(store.unsampled(rnd)) == [c.id]  # a failed prompt is not asked again
    assert prompt_ids(store.unsampled(round_of(2, initial, initial, [a]))) == [a.id]  # a new round samples anew
    (group,) = store.experience(rnd, JUDGE).groups
    assert group.prompt == a
    assert store.experience(rnd, JUDGE).judgements == ()
    store.add([[judgement(completion(rnd, a), None)]])
    (said,) = store.experience(rnd, JUDGE).judgements
    assert (said.completion_id, said.value) == (completion(rnd, a).id, None)
    assert store.experience(rnd, "another judge").judgements == ()


def test_an_answer_fills_a_judgement_that_had_none_and_nothing_else_changes_one(tmp_path: Path) -> None:
    store, initial = DuckStore(tmp_path / "a.duckdb"), checkpoint("initial")
    a = prompt("A?")
    rnd = round_of(1, initial, initial, [a])
    of = completion(rnd, a)
    for value, kept in ((None, None), (0.25, 0.25), (0.75, 0.25), (None, 0.25)):
        store.add([[a, initial, of, judgement(of, value)]])
        assert [j.value for j in store.experience(rnd, JUDGE).judgements] == [kept]
    assert [j.value for j in store.judged(JUDGE, [of.id])] == [0.25]
    assert store.judged("another judge", [of.id]) == []
    assert (store.knows_judge(JUDGE), store.knows_judge("another judge")) == (True, False)


def test_held_out_answers_of_a_policy_serve_every_round(filled: Filled) -> None:
    one, initial = filled.learned[0], filled.initial
    later = round_of(9, one, initial, filled.held_out, split="eval")
    assert filled.store.unsampled(later) == []
    assert prompt_ids(filled.store.unsampled(round_of(1, checkpoint("new"), initial, filled.held_out))) == [
        p.id for p in filled.held_out
    ]


def test_pairs_and_answers_are_what_the_learner_reads(filled: Filled) -> None:
    (row,) = filled.store.training_rows(filled.first, [filled.initial]).to_pylist()
    good, bad = (completion(filled.first, filled.train[0], k) for k in (0, 1))
    assert row["completion_ids"] == [good.id, bad.id]
    assert row["token_ids"] == [[5, 6, 7], [5, 6, 7]]
    assert row["reference"] == [[[pytest.approx(-0.875 / 3)] * 3, [pytest.approx(-2.0 / 3)] * 3]]
    assert (row["p_chosen"], row["margin"], row["weight"]) == (1.0, 1.0, 1.0)
    answers = filled.store.answers(round_of(1, filled.learned[0], filled.initial, filled.held_out)).to_pylist()
    assert [r["token_ids"] for r in answers] == [[[5, 6, 7]]] * 2
    assert [r["divergence"] for r in answers] == [0.25, 0.25]
    unscored = filled.store.answers(round_of(0, filled.initial, filled.initial, filled.held_out)).to_pylist()
    assert [r["divergence"] for r in unscored] == [None, None]


def test_a_run_is_complete_when_every_round_has_its_gate(filled: Filled, tmp_path: Path) -> None:
    store, (one, two) = filled.store, filled.learned
    assert (store.complete(RUN, 2), store.complete(RUN, 3), store.complete("another", 1)) == (True, False, False)
    assert not DuckStore(tmp_path / "none.duckdb").complete(RUN, 1)
    measured = store.evaluated(round_of(2, two, filled.initial, ()))
    assert [(e.metric, e.value) for e in measured] == [
        ("accepted", 0.0), ("kl", 0.5), ("mean_tokens", 4.0), ("pass_rate", 0.25), ("win_rate", 0.375),
    ]  # fmt: skip
    assert store.evaluated(round_of(2, one, filled.initial, ())) == []


def test_a_judge_without_an_answer_is_null_and_counted(filled: Filled) -> None:
    assert ask(filled.store, "SELECT count(*) FROM judgements WHERE value IS NULL") == [(1,)]
    assert ask(filled.store, "SELECT score, answers, abstentions FROM scores WHERE abstentions > 0") == [(None, 0, 1)]
    counted = (
        "SELECT round, prompts, completions, judged, paired, ties, identical, abstained, failed FROM round_summary"
    )
    assert ask(filled.store, f"{counted} WHERE round > 0") == [(1, 3, 6, 5, 1, 1, 0, 1, 0), (2, 3, 4, 4, 1, 0, 1, 0, 1)]
    shown = "SELECT mean_score, mean_tokens, truncated, loss, win_rate, kl, accepted FROM round_summary WHERE round = 2"
    assert ask(filled.store, shown) == [(0.875, 3.5, 0.25, 0.5, 0.375, 0.5, False)]


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.duckdb").write_text("not a database at all, but long enough to be read as a header" * 100)
    with pytest.raises(StoreError, match="cannot be opened as a DuckDB file"):
        DuckStore(tmp_path / "a.duckdb").run()
    with pytest.raises(StoreError, match="there is no store at"), Database(tmp_path / "none.duckdb").read():
        pass
