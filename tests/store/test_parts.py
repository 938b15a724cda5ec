import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from sparring.loop.errors import DataError, StoreError
from sparring.store.db import Database, migrate
from sparring.store.parts import parts_folder
from sparring.store.publish import publish, read_copy
from sparring.store.store import DuckStore
from tests.helpers.records import INFO, RUN, completion, filled_store, judgement, prompt

Row = tuple[Any, ...]
OPEN = """
import sys, duckdb
with duckdb.connect(sys.argv[1], read_only=True) as con:
    print(con.execute("SELECT count(*) FROM prompts").fetchall()[0][0], flush=True)
    sys.stdin.readline()
    print(con.execute("SELECT count(*) FROM prompts").fetchall()[0][0], flush=True)
"""


def part_rows(store: DuckStore, table: str) -> list[list[Row]]:
    """What the parts of a table say, part by part, as DuckDB reads them."""
    files = sorted((parts_folder(store.db.path) / table).glob("*.parquet"))
    return [duckdb.execute(f"FROM read_parquet('{file}')").fetchall() for file in files]


def stored(store: DuckStore, table: str) -> list[Row]:
    with store.db.read() as con:
        return con.execute(f"FROM {table}").fetchall()


def test_parts_have_every_row_as_it_stands(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "a.duckdb").store
    with store.db.read() as con:
        found = con.execute(
            "SELECT table_name, estimated_size FROM duckdb_tables() WHERE estimated_size > 0"
        ).fetchall()
    tables = {name: n for name, n in found if name != "schema_version"}
    assert len(tables) > 10
    assert {folder.name for folder in parts_folder(store.db.path).iterdir()} == set(tables)
    for name in tables:
        (rows,) = part_rows(store, name)  # one chunk, one part
        assert sorted(map(repr, rows)) == sorted(map(repr, stored(store, name)))  # with defaults such as created_at


def test_a_part_has_what_its_transaction_changed_and_no_more(tmp_path: Path) -> None:
    filled = filled_store(tmp_path / "a.duckdb")
    store, of = filled.store, completion(filled.second, filled.train[0])
    silent, answered = judgement(of, None, "slow"), judgement(of, 0.5, "slow")
    assert store.add([[silent], [silent], [answered], [silent], [answered]]) == 2
    _, asked, filled_in = part_rows(store, "judgements")  # the second and fourth chunks changed nothing
    assert [row[7] for row in asked + filled_in] == [None, 0.5]
    assert len(part_rows(store, "prompts")) == 1


def test_no_part_and_no_row_of_a_transaction_that_fails(tmp_path: Path) -> None:
    store = DuckStore(tmp_path / "a.duckdb")
    store.add([[prompt("Hello?")]])
    bad = pa.table({"outcome_id": ["a"], "run_id": [RUN], "round": [1], "prompt_id": ["p"], "outcome": ["lost"]})
    good = pa.table({"judge": ["j"], "kind": ["rules"], "options": ["{}"], "weights_sha256": [[""]]})
    with pytest.raises(duckdb.ConstraintException):
        store.ingest({"judges": good, "outcomes": bad})
    assert stored(store, "judges") == []
    assert [folder.name for folder in parts_folder(store.db.path).iterdir()] == ["prompts"]


def test_columns_go_in_as_records_do(tmp_path: Path) -> None:
    store = DuckStore(tmp_path / "a.duckdb")
    rows = pa.table({"judge": ["a", "b"], "kind": ["rules"] * 2, "options": ["{}"] * 2, "weights_sha256": [["x"], []]})
    assert store.ingest({"judges": rows}) == 2
    assert store.ingest({"judges": rows}) == 0
    assert sorted(stored(store, "judges")) == [("a", "rules", "{}", ["x"]), ("b", "rules", "{}", [])]


def test_a_store_from_before_parts_gets_them_when_it_is_first_written(tmp_path: Path) -> None:
    filled = filled_store(tmp_path / "a.duckdb")
    before = sorted(map(repr, stored(filled.store, "completions")))
    for file in sorted(parts_folder(filled.store.db.path).rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    parts_folder(filled.store.db.path).rmdir()
    again = DuckStore(filled.store.db.path)
    again.add([[prompt("Hello?")]])
    (first,) = part_rows(again, "completions")
    assert sorted(map(repr, first)) == before
    assert [len(rows) for rows in part_rows(again, "prompts")] == [5, 1]


def test_a_part_that_cannot_be_written_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    store = DuckStore(tmp_path / "a.duckdb")
    store.add([[INFO]])
    (parts_folder(store.db.path) / "prompts").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match=r"could not be written .* check free space with: df -h"):
        store.add([[prompt("Hello?")]])
    assert stored(store, "prompts") == []


def test_the_read_copy_follows_the_store(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "a.duckdb").store
    copy = publish(store.db)
    assert copy == read_copy(store.db.path) == tmp_path / "a.read.duckdb"
    first = copy.stat().st_ino
    reader = subprocess.Popen(
        [sys.executable, "-c", OPEN, str(copy)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "5\n"
    assert publish(store.db).stat().st_ino == first  # nothing changed
    store.add([[prompt("Hello?")]])
    assert publish(store.db).stat().st_ino != first
    with duckdb.connect(str(copy), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM prompts").fetchall() == [(6,)]
    assert reader.communicate("\n", timeout=60)[0] == "5\n"  # who has it open keeps what it had


def test_the_read_copy_has_what_a_killed_writer_left_in_the_log(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    script = f"""
import os, duckdb
con = duckdb.connect({str(path)!r})
con.execute("INSERT INTO judges VALUES ('late', 'rules', '{{}}', [])")
os._exit(9)
"""
    filled_store(path)
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert path.with_name("a.duckdb.wal").exists()
    with duckdb.connect(str(publish(Database(path))), read_only=True) as con:
        assert con.execute("SELECT judge FROM judges").fetchall() == [("late",)]


def test_a_log_that_somebody_left_at_the_read_copy_is_not_replayed(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "a.duckdb").store
    copy = publish(store.db)
    copy.with_name(f"{copy.name}.wal").write_bytes(b"of another file")
    store.add([[prompt("Hello?")]])
    with duckdb.connect(str(publish(store.db)), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM prompts").fetchall() == [(6,)]


def test_a_disk_without_room_for_the_copy_says_so(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "a.duckdb").store
    (tmp_path / "a.read.duckdb.partial").mkdir()  # in the way
    (tmp_path / "a.read.duckdb.partial" / "a.duckdb").mkdir()
    with pytest.raises(StoreError, match=r"keep\.read_copy: false"):
        publish(store.db)


def test_migrating_keeps_the_parts_complete(tmp_path: Path) -> None:
    path = tmp_path / "old.duckdb"
    with duckdb.connect(str(path)) as con:
        migrate(con)
        con.execute("INSERT INTO judges VALUES ('old', 'rules', '{}', [])")
    store = DuckStore(path)
    store.add([[prompt("Hello?")]])
    assert part_rows(store, "judges") == [[("old", "rules", "{}", [])]]


def test_a_lost_file_is_not_begun_anew_beside_its_parts(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "a.duckdb").store
    store.db.path.unlink()
    for again in (lambda: store.add([[prompt("Hello?")]]), lambda: stored(store, "prompts")):
        with pytest.raises(StoreError, match=r"a\.duckdb is gone.*: spar store rebuild, or remove .*a\.parts"):
            again()
    assert not store.db.path.exists()


def test_of_two_rows_for_one_judgement_the_answer_stays(tmp_path: Path) -> None:
    filled = filled_store(tmp_path / "a.duckdb")
    of = completion(filled.second, filled.train[0])
    assert filled.store.add([[judgement(of, None, "slow"), judgement(of, 0.5, "slow")]]) == 1
    assert filled.store.judged("slow", [of.id])[0].value == 0.5


def test_a_forgotten_prompt_does_not_come_back(tmp_path: Path) -> None:
    filled = filled_store(tmp_path / "a.duckdb")
    gone = prompt("Who lives at 1 Elm Street?")
    with filled.store.db.write() as con:
        con.execute("INSERT INTO forgotten VALUES (?, 'asked', 'Ann', now(), '{}', [], [], [])", [gone.id])
    for record in (gone, completion(filled.second, gone)):
        with pytest.raises(DataError, match=f"{gone.id} was forgotten on .* by Ann: asked; "):
            filled.store.add([[record]])
