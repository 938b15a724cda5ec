"""A new store has the schema that the nine first migrations made, and a store that they made goes on being one.

schemas/v9.sql is such a store: the catalog that the nine files left, and rows in every table.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sparring.loop.errors import StoreTooOld
from sparring.loop.types import Checkpoint, Judgement, RunInfo
from sparring.store import history
from sparring.store.db import Database, migrations
from sparring.store.maintenance.check import check
from sparring.store.maintenance.copies import backup, compact
from sparring.store.maintenance.forget import forget
from sparring.store.maintenance.migrate import migrate_file
from sparring.store.maintenance.parts import check_parts, merge, parts_of
from sparring.store.maintenance.rebuild import rebuild
from sparring.store.parts import complete, parts_folder
from sparring.store.publish import read_copy
from sparring.store.store import DuckStore

STATES = """SELECT run_id, kind FROM runs UNION ALL
SELECT judgement_id, status FROM judgements WHERE judgement_id IN ('judgement_a1', 'judgement_c0', 'judgement_u0')"""
BACK_FILLED = {
    "old-1": "loop",
    "reward-1": "reward",
    "evaluate-1": "evaluate",
    "import-1": "import",
    "judgement_a1": "answered",  # a score of 0
    "judgement_c0": "abstained",
    "judgement_u0": "unreached",
}
OLD = (Path(__file__).parent / "schemas" / "v9.sql").read_text()
NEWEST = migrations()[-1][0]
Answers = dict[str, list[tuple[Any, ...]]]

# The order of the names in a view's EXCLUDE and REPLACE differs from one DuckDB to the next: words are compared.
CATALOG = {
    "tables": "SELECT table_name, comment, sql FROM duckdb_tables() WHERE NOT internal",
    "views": "SELECT view_name, comment, list_sort(regexp_extract_all(sql, '\\w+|\\S')) FROM duckdb_views() "
    "WHERE NOT internal",
    "indexes": "SELECT index_name, table_name, is_unique, expressions FROM duckdb_indexes()",
    "columns": "SELECT table_name, column_index, column_name, data_type, is_nullable, column_default, comment "
    "FROM duckdb_columns() WHERE NOT internal",
    "constraints": "SELECT table_name, constraint_type, constraint_text FROM duckdb_constraints()",
}


def make_old(path: Path, version: int = 9) -> Path:
    """A file as the nine migrations made it, or one that stopped after fewer of them."""
    with duckdb.connect(str(path), config={"storage_compatibility_version": "v1.5.0"}) as con:
        con.execute(OLD)
        con.execute("DELETE FROM schema_version WHERE version > ?", [version])
    return path


def columns(con: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """Of every table and view."""
    rows = con.execute(
        """SELECT table_name, list(column_name ORDER BY column_index) FROM duckdb_columns()
        WHERE NOT internal AND table_name <> 'schema_version' GROUP BY table_name"""
    ).fetchall()
    return dict(rows)


def answers(con: duckdb.DuckDBPyConnection, named: dict[str, list[str]]) -> Answers:
    def quoted(names: list[str]) -> str:
        return ", ".join(f'"{name}"' for name in names)

    return {name: con.execute(f"SELECT {quoted(c)} FROM {name} ORDER BY ALL").fetchall() for name, c in named.items()}


def old_answers(path: Path) -> tuple[dict[str, list[str]], Answers]:
    with duckdb.connect(str(path), read_only=True) as con:
        return columns(con), answers(con, columns(con))


def test_a_new_store_has_the_schema_of_the_nine_migrations() -> None:
    number, file = migrations()[0]
    assert (number, file.name) == (9, "0009_schema.sql")
    with duckdb.connect() as old, duckdb.connect() as new:
        old.execute(OLD)
        new.execute(file.read_text())
        rows = re.search(r"\n(-- A run of one round.*)", OLD, re.DOTALL)
        assert rows is not None
        new.execute(rows[1])
        old.execute("DROP TABLE schema_version")
        for name, sql in CATALOG.items():
            assert old.execute(f"{sql} ORDER BY ALL").fetchall() == new.execute(f"{sql} ORDER BY ALL").fetchall(), name
        before = answers(old, columns(old))
        assert all(before.values())  # every table and view has rows to compare
        assert before == answers(new, columns(new))


def test_an_old_store_keeps_its_rows_and_its_answers(tmp_path: Path) -> None:
    named, before = old_answers(make_old(tmp_path / "old.duckdb"))
    with Database(tmp_path / "old.duckdb").read() as con:  # which migrates
        assert before == answers(con, named)


def states(db: Database) -> dict[str, str]:
    with db.read() as con:
        return dict(con.execute(STATES).fetchall())


def test_states_are_read_from_configs_and_rationales(tmp_path: Path) -> None:
    assert states(Database(make_old(tmp_path / "old.duckdb"))) == BACK_FILLED


@pytest.mark.parametrize("merged", [False, True])
def test_states_of_parts_from_before_the_columns(tmp_path: Path, merged: bool) -> None:
    store = DuckStore(make_old(tmp_path / "old.duckdb"))
    parts = parts_folder(store.db.path)
    with duckdb.connect(str(store.db.path)) as con:
        complete(con, parts)
    later = Judgement("judgement_l0", "duel", "completion_a3", None, "", "", 0, None, "timeout", "unreached")
    store.add([[later, replace(later, id="judgement_l1", value=0.5)]])
    answered = Judgement("judgement_u0", "duel", "completion_a3", None, "", "", 0, 1.0)
    if merged:
        store.add([[answered]])  # the first row in the parts stands without an answer
        merge(parts)
    store.db.path.unlink()
    rebuild(store.db)
    assert states(store.db) == BACK_FILLED | ({"judgement_u0": "answered"} if merged else {})
    assert {j.id: j.status for j in store.judged("duel", ["completion_a3"])} == {
        "judgement_u0": "answered" if merged else "unreached",
        "judgement_l0": "unreached",
        "judgement_l1": "answered",
    }
    assert [finding for finding in check(store.db)[1] if not finding.ok] == []


def test_an_old_store_is_sound_and_can_be_used(tmp_path: Path) -> None:
    store = DuckStore(make_old(tmp_path / "old.duckdb"))
    assert migrate_file(store.db) == (9, NEWEST)
    assert migrate_file(store.db) == (NEWEST, NEWEST)
    counts, findings = check(store.db)
    assert [finding for finding in findings if not finding.ok] == []
    assert (counts["completions"], counts["schema_version"]) == (12, NEWEST)
    assert [f for f in check_parts(store.db) if not f.ok or f.remedy] == []  # the first write made them
    config = {"rounds": 1, "shape": {"seed": 7}}
    assert store.run("old") == RunInfo("old-1", "old", 7, config, "c0ffee", {"sparring": "0.1.0"})
    rnd = store.last_round("old-1")
    first = Checkpoint("checkpoint_0", "old-1", "/old/model", None, "w0")
    assert rnd is not None
    assert (rnd.policy, rnd.index, rnd.judge) == (first, 2, None)
    assert history.policy_after(store.db, "old-1", 1) == first
    with store.db.read() as con:
        summary = con.execute(
            """SELECT prompts, completions, judged, pairs, paired, ties, abstained, filtered, mean_score, mean_tokens,
            truncated, loss, win_rate, kl, accepted FROM round_summary WHERE run_id = 'old-1' AND round = 1"""
        ).fetchall()
        texts = con.execute("SELECT prompt, chosen, rejected, chosen_score FROM pair_texts ORDER BY pair_id").fetchall()
    # prompt_a scores 1 and 0, prompt_b 0.5 twice; token counts are 2, 1, 1, 2, 1
    assert summary == [(3, 5, 4, 1, 1, 1, 1, 0, 0.5, 1.4, 0.2, 0.625, 1.0, 0.5, True)]
    assert texts == [("Name a bird.", "a robin", "no", 1.0), ("Name a tree.", "an oak", "a cod", None)]


def test_an_old_store_is_copied_compacted_and_forgets(tmp_path: Path) -> None:
    path = make_old(tmp_path / "old.duckdb")
    named, before = old_answers(path)
    db = Database(path)
    assert backup(db, tmp_path / "backup.duckdb")["completions"] == 12
    compact(db)
    for each in (path, tmp_path / "backup.duckdb"):
        with Database(each).read() as con:
            assert before == answers(con, named)
    assert forget(db, ["prompt_i"], "asked to", "ann").removed["completions"] == 2
    assert [finding for finding in check(db)[1] if not finding.ok] == []


def test_a_lost_old_file_comes_back_from_its_parts(tmp_path: Path) -> None:
    path = make_old(tmp_path / "old.duckdb")
    named, before = old_answers(path)
    migrate_file(Database(path))  # the first write of today's version writes the parts
    path.unlink()
    rebuild(Database(path))
    with Database(path).read() as con:
        assert before == answers(con, named)


def test_a_read_copy_is_brought_up_to_date_without_parts_of_its_own(tmp_path: Path) -> None:
    copy = read_copy(make_old(tmp_path / "old.duckdb"))
    named, before = old_answers(make_old(copy))
    with Database(copy).read(sealed=True) as con:
        assert before == answers(con, named)
    assert not parts_folder(copy).exists()
    store = DuckStore(tmp_path / "old.duckdb")
    assert store.run("old") is not None  # a reader leaves the parts to the first writer
    assert not parts_folder(store.db.path).exists()
    store.add([[Checkpoint("checkpoint_9", "old-1", "", None, "")]])
    assert (
        len(parts_of(parts_folder(store.db.path))) == len(named) - 19 + 3  # views have none; three tables are new
    )  # views have none; run_models and prompt_tokens are new


def test_a_migration_that_was_changed_is_found(tmp_path: Path) -> None:
    path = make_old(tmp_path / "old.duckdb")
    with duckdb.connect(str(path)) as con:
        con.execute("UPDATE schema_version SET sha256 = 'x' WHERE version = 2")
    (finding,) = [finding for finding in check(Database(path))[1] if not finding.ok]
    assert finding.name == "the schema is that of this version"
    assert " 2, " in finding.found


@pytest.mark.parametrize("version", [1, 8])
def test_a_store_that_is_too_old_is_refused_and_left_as_it_is(tmp_path: Path, version: int) -> None:
    path = make_old(tmp_path / "old.duckdb", version)
    before = path.read_bytes()
    store = DuckStore(path)
    attempts = [
        store.run,
        lambda: check(store.db),
        lambda: migrate_file(store.db),
        lambda: store.add([[Checkpoint("c", "r", "", None, "")]]),
    ]
    for attempt in attempts:
        with pytest.raises(StoreTooOld, match=rf"version {version}, .* version 9 or later; .*d957747"):
            attempt()
    assert path.read_bytes() == before
