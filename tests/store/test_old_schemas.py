"""A store of every older schema version migrates, keeps its rows, and answers the same questions.

schemas/vK.sql has what a run stored under version K beyond the versions before it.
"""

import hashlib
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sparring.loop.types import Checkpoint, RunInfo
from sparring.store import history
from sparring.store.db import Database, migrations
from sparring.store.maintenance.check import check
from sparring.store.maintenance.migrate import migrate_file
from sparring.store.maintenance.rebuild import rebuild
from sparring.store.store import DuckStore

SCHEMAS = Path(__file__).parent / "schemas"
VERSIONS = (1, 2, 3, 4)
Answers = dict[str, list[tuple[Any, ...]]]
FIRST = Checkpoint("checkpoint_0", "old-1", "/old/model", None, "w0")


def make_old(path: Path, version: int) -> None:
    """The file as that version made it."""
    with duckdb.connect(str(path), config={"storage_compatibility_version": "v1.5.0"}) as con:
        con.execute("CREATE TABLE schema_version (version INTEGER PRIMARY KEY, name VARCHAR NOT NULL, "
                    "sha256 VARCHAR NOT NULL, applied_at TIMESTAMPTZ NOT NULL DEFAULT now())")  # fmt: skip
        for number, file in migrations()[:version]:
            con.execute(file.read_text())
            sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
            con.execute("INSERT INTO schema_version (version, name, sha256) VALUES (?, ?, ?)",
                        [number, file.stem, sha256])  # fmt: skip
        for k in range(1, version + 1):
            con.execute((SCHEMAS / f"v{k}.sql").read_text())


def columns(con: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """Of every table and view."""
    found = con.execute(
        """SELECT table_name, list(column_name ORDER BY column_index) FROM duckdb_columns()
        WHERE NOT internal AND table_name <> 'schema_version' GROUP BY table_name"""
    ).fetchall()
    return dict(found)


def answers(con: duckdb.DuckDBPyConnection, asked: dict[str, list[str]]) -> Answers:
    def named(names: list[str]) -> str:
        return ", ".join(f'"{name}"' for name in names)

    return {name: con.execute(f"SELECT {named(c)} FROM {name} ORDER BY ALL").fetchall() for name, c in asked.items()}


def before_and_after(path: Path, version: int) -> tuple[Answers, Answers]:
    make_old(path, version)
    with duckdb.connect(str(path), read_only=True) as con:
        asked = columns(con)
        before = answers(con, asked)
    with Database(path).read() as con:  # which migrates
        return before, answers(con, asked)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_old_store_keeps_its_rows_and_its_answers(tmp_path: Path, version: int) -> None:
    before, after = before_and_after(tmp_path / "old.duckdb", version)
    assert len(before["completions"]) == (7 if version < 4 else 10)
    edges, more = before.pop("lineage"), after.pop("lineage")
    assert set(edges) <= set(more)  # later versions know more causes
    assert before == after


@pytest.mark.parametrize("version", VERSIONS)
def test_an_old_store_is_sound_and_can_be_used(tmp_path: Path, version: int) -> None:
    path = tmp_path / "old.duckdb"
    make_old(path, version)
    store = DuckStore(path)
    assert migrate_file(store.db) == (version, migrations()[-1][0])
    assert migrate_file(store.db) == (migrations()[-1][0], migrations()[-1][0])
    _, found = check(store.db)
    assert [finding for finding in found if not finding.ok] == []
    config = {"rounds": 1, "shape": {"seed": 7}}
    assert store.run("old") == RunInfo("old-1", "old", 7, config, "c0ffee", {"sparring": "0.1.0"})
    rnd = store.last_round("old-1")
    assert rnd is not None
    assert (rnd.policy, rnd.index, rnd.judge) == (FIRST, 1 if version < 4 else 2, None)
    assert history.policy_after(store.db, "old-1", 1) == (
        FIRST if version > 2 else Checkpoint("checkpoint_1", "old-1", "/old/runs/old-1/round-0001", FIRST.id, "w1")
    )
    with store.db.read() as con:
        summary = con.execute(
            """SELECT prompts, completions, judged, pairs, paired, ties, abstained, filtered, mean_score, mean_tokens,
            truncated, loss, win_rate, kl, accepted FROM round_summary WHERE run_id = 'old-1' AND round = 1"""
        ).fetchall()
        texts = con.execute("SELECT prompt, chosen, rejected, chosen_score FROM pair_texts").fetchall()
    # prompt_a scores 1 and 0, prompt_b 0.5 twice; token counts are 2, 1, 1, 2, 1
    assert summary == [(3, 5, 4, 1, 1, 1, 1, 0, 0.5, 1.4, 0.2, 0.625, 1.0, 0.5, True)]
    assert texts == [("Name a bird.", "a robin", "no", 1.0)]


def test_a_lost_file_that_began_in_the_first_version_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "old.duckdb"
    make_old(path, 1)
    store = DuckStore(path)
    migrate_file(store.db)  # the first write of today's version writes the parts
    with store.db.read() as con:
        before = answers(con, columns(con))
    path.unlink()
    rebuild(store.db)
    with store.db.read() as con:
        after = answers(con, columns(con))
    assert before == after
