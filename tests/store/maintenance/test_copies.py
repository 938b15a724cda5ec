"""Backup, compact, and parts made few: the rows stay what they are."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sparring.loop.errors import StoreBusy, StoreError
from sparring.store.db import Database
from sparring.store.maintenance.copies import backup, compact
from sparring.store.maintenance.parts import check_parts, merge, parts_of
from sparring.store.parts import parts_folder
from sparring.store.store import DuckStore
from tests.helpers.paths import ROOT
from tests.helpers.records import completion, filled_store, judgement, prompt
from tests.helpers.store_files import rows_of

HOLD = "import sys, duckdb; con = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.readline()"
FULL = """
import resource, sys
from pathlib import Path
from sparring.loop.errors import StoreError
from sparring.store.maintenance.copies import backup, compact
from sparring.store.db import Database
db = Database(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
for step in (compact, lambda db: backup(db, Path(sys.argv[1] + ".kept"))):
    try:
        step(db)
    except StoreError as error:
        print(str(error).replace(chr(10), " "))
"""


def schema(path: Path) -> list[tuple[Any, ...]]:
    """Tables, views, constraints and comments."""
    with duckdb.connect(str(path), read_only=True) as con:
        return con.execute(
            """SELECT 'view', view_name, comment, NULL FROM duckdb_views() WHERE NOT internal
            UNION ALL SELECT 'table', table_name, sql, comment FROM duckdb_tables()
            UNION ALL SELECT 'column', table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal
            UNION ALL SELECT constraint_type, table_name, constraint_text, NULL FROM duckdb_constraints()
            ORDER BY ALL"""
        ).fetchall()


def test_a_backup_is_the_store_and_writes_over_nothing(tmp_path: Path) -> None:
    store, to = filled_store(tmp_path / "a.duckdb").store, tmp_path / "kept" / "b.duckdb"
    to.parent.mkdir()
    counts = backup(store.db, to)
    assert counts["completions"] == 16
    assert rows_of(to) == rows_of(store.db.path)
    assert schema(to) == schema(store.db.path)
    assert DuckStore(to).add([[prompt("Hello?")]]) == 1  # it is a store
    before = to.read_bytes()
    with pytest.raises(StoreError, match="exists, and a backup does not overwrite"):
        backup(store.db, to)
    assert to.read_bytes() == before
    assert {path.name for path in to.parent.iterdir()} == {"b.duckdb", "b.duckdb.lock", "b.parts"}
    with pytest.raises(StoreError, match="there is no store at"):
        backup(Database(tmp_path / "none.duckdb"), tmp_path / "c.duckdb")


def test_a_backup_has_what_a_killed_writer_left_in_the_log(tmp_path: Path) -> None:
    path = filled_store(tmp_path / "a.duckdb").store.db.path
    late = "con.execute(\"INSERT INTO judges VALUES ('late', '', '{}', [])\"); os._exit(9)"
    script = f"import os, duckdb; con = duckdb.connect({str(path)!r}); {late}"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    backup(Database(path), tmp_path / "b.duckdb")
    assert [row[0] for row in rows_of(tmp_path / "b.duckdb")["judges"]] == ["late"]


def test_a_disk_without_room_leaves_the_store_and_no_half_copy(tmp_path: Path) -> None:
    path = filled_store(tmp_path / "a.duckdb").store.db.path
    before = rows_of(path)
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], cwd=ROOT, capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert len(said) == 2
    assert all("could not be copied" in line and "check free space with: df -h" in line for line in said)
    assert rows_of(path) == before
    assert {each.name for each in tmp_path.iterdir()} == {"a.duckdb", "a.duckdb.lock", "a.parts"}
    with pytest.raises(StoreError, match=r"there is no folder .*; create it"):
        backup(Database(path), tmp_path / "nowhere" / "b.duckdb")


def test_compacting_gives_the_room_of_deleted_rows_back(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "a.duckdb").store
    store.add([[prompt(f"{k}: {'?' * 100} {k * 7919}") for k in range(20_000)]])
    with store.db.write() as con:
        con.execute("DELETE FROM prompts WHERE messages::VARCHAR LIKE '%???%'")
    rows, made = rows_of(store.db.path), schema(store.db.path)
    before, after = compact(store.db)
    assert before > after + 500_000
    assert after == store.db.path.stat().st_size
    assert rows_of(store.db.path) == rows
    assert schema(store.db.path) == made
    assert not list(tmp_path.glob("*compacting*"))


def test_who_holds_the_file_keeps_it_from_being_exchanged(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "a.duckdb").store
    shell = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store.db.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert shell.stdout is not None and shell.stdout.readline() == "open\n"
    with pytest.raises(StoreBusy, match="another program has"):
        compact(store.db)
    shell.communicate("\n", timeout=60)
    assert compact(store.db)[1] > 0


def test_many_small_parts_become_one_with_the_same_rows(tmp_path: Path) -> None:
    filled = filled_store(tmp_path / "a.duckdb")
    store, folder = filled.store, parts_folder(tmp_path / "a.duckdb")
    answer = completion(filled.second, filled.train[0])
    for k in range(3):
        store.add([[prompt(f"Hello {k}?"), judgement(answer, None, f"j{k}")], [judgement(answer, 0.5, f"j{k}")]])
    before = parts_of(folder)
    assert (len(before["prompts"]), len(before["judgements"])) == (4, 7)
    rows = sorted(duckdb.execute(f"FROM read_parquet('{folder}/judgements/*')").fetchall(), key=repr)
    broken = before["prompts"][1]
    broken.write_bytes(b"PAR1 but no more")
    assert merge(folder) == (22, 22 - 6 - 2)  # seven of judgements, and three of prompts that can be read
    after = parts_of(folder)
    assert len(after["judgements"]) == 1
    assert set(after["prompts"]) > {broken} and len(after["prompts"]) == 2  # what is damaged is left as it is
    assert after["judgements"][0].name[:20] == before["judgements"][0].name[:20]
    assert sorted(duckdb.execute(f"FROM '{after['judgements'][0]}'").fetchall(), key=repr) == rows
    broken.unlink()
    assert [f.name for f in check_parts(store.db) if f.remedy] == ["rows of prompts"]  # the one of the broken part
