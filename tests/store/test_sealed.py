"""A sealed connection, with and without the check that a statement asks: no file changes, and nothing is told."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from sparring.loop.errors import ConfigError
from sparring.store.db import Database
from sparring.store.reader import answer
from sparring.store.sealed import check_question, seal, statements
from tests.helpers.attacks import ANSWERED, FILES, NETWORK, OWN_FILES, PASSWORD, REFUSED, SECRET, WRITES
from tests.helpers.paths import ROOT
from tests.helpers.records import filled_store

# A writer that dies between its commit and the end: what it wrote is in the write-ahead log alone.
DIES = """
import os, sys
from sparring.store.db import Database
with Database(sys.argv[1]).write() as con:
    con.execute("UPDATE prompts SET source = 'written'")
    con.execute("COMMIT")
    os._exit(0)
"""


@dataclass(frozen=True)
class Tried:
    """Each attack's answer, or its error, and the files' bytes and times before and after."""

    checked: dict[str, str | Exception]
    sealed: dict[str, str | Exception]
    before: dict[str, tuple[bytes, int]]
    after: dict[str, tuple[bytes, int]]


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """All but the store's own lock, which each connection takes. DuckDB has none of them open now."""
    found = (path for path in folder.rglob("*") if path.suffix != ".lock")
    return {str(p.relative_to(folder)): (p.read_bytes() if p.is_file() else b"", p.stat().st_mtime_ns) for p in found}


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    folder = tmp_path_factory.mktemp("sealed")
    filled_store(folder / "preferences.duckdb")
    (folder / "secret.txt").write_text(SECRET)
    (folder / "train.jsonl").write_text(f'{{"prompt": "{SECRET}"}}\n')
    subprocess.run([sys.executable, "-c", DIES, folder / "preferences.duckdb"], cwd=ROOT, check=True)
    assert (folder / "preferences.duckdb.wal").stat().st_size > 0
    os.environ["HTTP_PROXY"] = f"http://user:{PASSWORD}@localhost:1"
    try:
        with chdir(folder):
            before = files(folder)
            checked, sealed = _checked(), _sealed()
            after = files(folder)
        yield Tried(checked, sealed, before, after)
    finally:
        del os.environ["HTTP_PROXY"]


def _checked() -> dict[str, str | Exception]:
    """By the public way."""
    db, found = Database("preferences.duckdb"), dict[str, str | Exception]()
    secret_rows = pa.table({"secret": [SECRET]})
    assert len(secret_rows) == 1  # a variable that `FROM secret_rows` must not find
    for sql in (*REFUSED, *ANSWERED):
        try:
            with answer(db, sql, seconds=10) as batches:
                found[sql] = str(batches.read_all().to_pylist())
        except ConfigError as error:
            found[sql] = error
    return found


def _sealed() -> dict[str, str | Exception]:
    """All statements of a text without a check: what the locks alone keep out."""
    con, found = duckdb.connect("preferences.duckdb", read_only=True), dict[str, str | Exception]()
    seal(con)
    for sql in (*REFUSED, *ANSWERED):
        try:
            found[sql] = str(con.cursor().execute(sql).fetchall())
        except (duckdb.Error, ValueError) as error:
            found[sql] = error
    con.close()
    return found


def test_every_attack_is_refused(tried: Tried) -> None:
    said = {sql: tried.checked[sql] for sql in REFUSED}
    assert len(said) > 150
    assert {sql: found for sql, found in said.items() if not isinstance(found, ConfigError)} == {}
    assert {str(found).split(":")[0] for found in said.values()} == {"the query failed"}


def test_what_is_answered_is_harmless(tried: Tried) -> None:
    answers = {sql: tried.checked[sql] for sql in ANSWERED}
    failed = [sql for sql, found in answers.items() if isinstance(found, Exception)]
    assert failed == ["SELECT * FROM force_checkpoint()"]


def test_no_attack_changed_a_file(tried: Tried) -> None:
    assert tried.after == tried.before
    assert "preferences.duckdb.wal" in tried.after


def test_no_attack_was_told_a_secret(tried: Tried) -> None:
    told = [sql for found in (tried.checked, tried.sealed) for sql, said in found.items() if "hunter2" in str(said)]
    assert told == []


def test_the_seal_alone_keeps_files_out(tried: Tried) -> None:
    """A check of statements can be fooled (EXPLAIN has any statement in it), so what it refuses cannot happen."""
    reached = [sql for sql in (*WRITES, *OWN_FILES, *FILES, *NETWORK) if not isinstance(tried.sealed[sql], Exception)]
    in_memory = {"LOAD json", "CREATE TEMPORARY SECRET stolen (TYPE http, BEARER_TOKEN 'a')"}
    assert set(reached) <= in_memory


def test_the_seal_keeps_a_copy_from_overwriting_the_store(tmp_path: Path) -> None:
    """DuckDB before 2.0.1 lets COPY overwrite the file that it has open, also read-only and without external access."""
    path = tmp_path / "a.duckdb"
    filled_store(path)
    before = path.read_bytes()
    con = duckdb.connect(str(path), read_only=True)
    seal(con)
    with pytest.raises(duckdb.Error):
        con.execute(f"COPY (SELECT 1) TO '{path}' (FORMAT csv, USE_TMP_FILE false)")
    con.close()
    assert path.read_bytes() == before
    with duckdb.connect(str(path), read_only=True) as again:
        assert again.execute("SELECT count(*) > 0 FROM completions").fetchone() == (True,)


def test_statements_are_split_where_sql_ends_them() -> None:
    assert [each.rstrip(";") for each in statements("SELECT ';';\nSELECT 2;;")] == ["SELECT ';'", "SELECT 2"]
    assert statements(" ;; -- nothing\n") == []
    with pytest.raises(ConfigError, match='syntax error at or near "SELEKT"'):
        statements("SELEKT 1")


def test_one_question_is_one_statement() -> None:
    for sql in (
        "FROM x",
        "WITH a AS (SELECT 1) FROM a",
        "VALUES (1)",
        "DESCRIBE x",
        "SHOW TABLES",
        "EXPLAIN SELECT 1;",
    ):
        check_question(sql)
    for sql, n in (("", 0), ("SELECT 1; SELECT 2", 2)):
        with pytest.raises(ConfigError, match=f"it has {n} statements, expected one"):
            check_question(sql)
