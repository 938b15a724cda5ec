"""The one DuckDB of a process: files come and go, whatever went wrong with the last one."""

import os
from pathlib import Path

import duckdb
import pytest

from sparring.loop.errors import StoreBusy, StoreError
from sparring.store.db import Database
from sparring.store.engine import attach, detach
from sparring.store.store import DuckStore
from tests.helpers.records import prompt


def open_files(folder: Path) -> set[str]:
    found = (os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd"))
    return {Path(name).name for name in found if name.startswith(str(folder))}


def count(db: Database) -> int:
    with db.read() as con:
        return int(con.execute("SELECT count(*) FROM prompts").fetchall()[0][0])


def test_two_stores_in_turn_are_not_mixed_up(tmp_path: Path) -> None:
    first, other = DuckStore(tmp_path / "it's.duckdb"), DuckStore(tmp_path / "a b;--.duckdb")
    for i in range(3):
        first.add([[prompt(f"first {i}")]])
        if i:
            other.add([[prompt(f"other {i}")]])
        assert open_files(tmp_path) == set()
    assert (count(first.db), count(other.db)) == (3, 2)


def test_a_failed_transaction_leaves_nothing_of_it_and_the_file_closed(tmp_path: Path) -> None:
    store = DuckStore(tmp_path / "a.duckdb")
    store.add([[prompt("kept")]])
    with pytest.raises(ZeroDivisionError), store.db.write() as con:
        con.execute("DELETE FROM prompts")
        held = con.sql("FROM prompts")  # a relation that is still referred to keeps its connection
        raise ZeroDivisionError
    assert open_files(tmp_path) == set()
    assert count(store.db) == 1
    del held


def test_when_a_file_cannot_be_detached_its_duckdb_is_given_up(tmp_path: Path) -> None:
    """As after a fatal error, when a DuckDB answers nothing more."""
    store = DuckStore(tmp_path / "a.duckdb")
    store.add([[prompt("kept")]])
    con = attach(store.db.path, read_only=True)
    con.close()
    with pytest.raises(duckdb.ConnectionException):
        con.execute("DETACH store")
    detach(con)
    assert open_files(tmp_path) == set()
    assert count(store.db) == 1


def test_a_file_that_an_interrupted_caller_left_attached_is_let_go_of(tmp_path: Path) -> None:
    store = DuckStore(tmp_path / "a.duckdb")
    store.add([[prompt("kept")]])
    attach(store.db.path, read_only=True)  # interrupted before it could detach it
    assert open_files(tmp_path) == {"a.duckdb"}
    store.add([[prompt("more")]])
    assert open_files(tmp_path) == set()
    assert count(store.db) == 2


def test_a_fork_has_a_duckdb_of_its_own(tmp_path: Path) -> None:
    store = DuckStore(tmp_path / "a.duckdb")
    store.add([[prompt("of the parent")]])
    child = os.fork()
    if not child:
        code = 1
        try:
            DuckStore(store.db.path).add([[prompt("of the child")]])
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert count(store.db) == 2


def test_a_program_that_has_the_file_open_itself_is_told(tmp_path: Path) -> None:
    store = DuckStore(tmp_path / "a.duckdb", wait=0.1)
    store.add([[prompt("kept")]])
    with duckdb.connect(str(store.db.path)), pytest.raises(StoreBusy, match="already attached"):
        store.add([[prompt("more")]])
    store.add([[prompt("more")]])
    assert count(store.db) == 2


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.duckdb").write_text("nothing" * 1000)
    with pytest.raises(StoreError, match=r"a\.duckdb cannot be opened as a DuckDB file"):
        count(Database(tmp_path / "a.duckdb"))
    assert open_files(tmp_path) == set()
