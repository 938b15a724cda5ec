"""A process that opens and closes the store's file itself drops DuckDB's lock on it, and rows are lost without an error
(POSIX fcntl). So nothing of ours opens it, whatever is done to a store; and rows written meanwhile are all there."""

import json
import multiprocessing
import re
import subprocess
import sys
from multiprocessing.synchronize import Event
from pathlib import Path

import duckdb
import pytest

from sparring import store
from sparring.loop.errors import StoreError
from sparring.store.engine import FORMAT
from sparring.store.maintenance.check import check
from sparring.store.maintenance.copies import backup, compact
from sparring.store.publish import publish, read_copy
from sparring.store.store import DuckStore
from tests.helpers.paths import ROOT
from tests.helpers.records import RUN, prompt
from tests.helpers.spar import environment, project

pytestmark = pytest.mark.slow

# Everything a person can do to a store, in one process that tells each time Python opens its file, by whatever name.
WATCHED = """
import json, os, sys
opened = []
def inode(path):
    try:
        found = os.stat(path)
        return found.st_dev, found.st_ino
    except (OSError, TypeError, ValueError):
        return None
def watch(event, args):
    if event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
        if inode(args[0]) in {inode(name) for name in NAMES} - {None}:
            opened.append([done, os.fsdecode(args[0])])
NAMES = ("preferences.duckdb", "preferences.duckdb.wal")
done = "imports"
sys.addaudithook(watch)
from sparring.cli import main
codes = {}
for words in json.load(sys.stdin):
    done = " ".join(words)
    sys.argv = ["spar", *words]
    try:
        main()
        codes[done] = 0
    except SystemExit as stop:
        codes[done] = stop.code or 0
done = "the hazard itself"
open("preferences.duckdb", "rb").close()
print("\\n" + json.dumps([opened, codes]))
"""
COMMANDS = [
    ["status"],
    ["show", RUN],
    ["lineage", "pair"],
    ["sql", "FROM pair_texts"],
    ["sql", "FROM pair_texts", "--to", "pairs.csv"],
    ["ask", "results"],
    ["export", "pairs", "--to", "pairs.parquet"],
    ["import", "pairs.parquet", "--source", "by-hand", "--licence", "MIT"],
    ["store", "check"],
    ["store", "migrate"],
    ["store", "backup", "backup.duckdb"],
    ["store", "compact"],
    ["store", "rebuild"],
    ["store", "check"],
]


def test_no_command_opens_the_file_itself(tmp_path: Path) -> None:
    filled = project(tmp_path)
    publish(filled.store.db)
    pair = next(iter(store.open(filled.store.db.path).sql("SELECT pair_id FROM pairs").rows()))["pair_id"]
    commands = [[pair if word == "pair" else filled.info.id if word == RUN else word for word in c] for c in COMMANDS]
    done = subprocess.run(
        [sys.executable, "-c", WATCHED], cwd=tmp_path, env=environment(), input=json.dumps(commands),
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    opened, codes = json.loads(done.stdout.splitlines()[-1])
    assert opened == [["the hazard itself", "preferences.duckdb"]]  # the watch works, and saw nothing else
    assert {words: code for words, code in codes.items() if code} == {}, done.stderr


def write(path: Path, writer: int, out: "multiprocessing.queues.Queue[int]") -> None:  # type: ignore[name-defined]
    db = DuckStore(path)
    out.put(sum(db.add([[prompt(f"{writer} {chunk} {k}?") for k in range(3)]]) for chunk in range(4)))


def do_everything(path: Path, done: Event) -> None:
    """Each public operation on the store, again and again, in one process."""
    db, number = DuckStore(path).db, 0
    while not done.is_set() or number < 2:
        publish(db)
        assert store.open(path).sql("SELECT count(*) % 3 AS n FROM prompts").rows() == [{"n": 0}]
        assert [each for each in check(db)[1] if not each.ok] == []
        backup(db, path.with_name(f"backup-{number}.duckdb")) if number % 2 else compact(db)
        number += 1


def test_whatever_is_done_beside_writers_no_committed_row_is_lost(tmp_path: Path) -> None:
    path, spawn = tmp_path / "preferences.duckdb", multiprocessing.get_context("spawn")
    DuckStore(path).add([[prompt(f"first {k}?") for k in range(3)]])
    done, out = spawn.Event(), spawn.Queue()
    busy = spawn.Process(target=do_everything, args=(path, done))
    writers = [spawn.Process(target=write, args=(path, n, out)) for n in range(2)]
    for process in (busy, *writers):
        process.start()
    added = [out.get(timeout=120) for _ in writers]
    done.set()
    for process in (*writers, busy):
        process.join(120)
    assert (added, [p.exitcode for p in (busy, *writers)]) == ([12, 12], [0, 0, 0])
    publish(DuckStore(path).db)
    for each in (path, read_copy(path)):
        assert store.open(each).sql("SELECT count(*) AS n FROM prompts").rows() == [{"n": 27}]


def test_every_file_opens_in_duckdb_1_5(tmp_path: Path) -> None:
    """The store, its read copy, a backup and a compacted store, as DuckDB reads the version in the file's head."""
    found = DuckStore(tmp_path / "preferences.duckdb")
    found.add([[prompt("Hello?")]])
    compact(found.db)
    backup(found.db, tmp_path / "backup.duckdb")
    assert FORMAT == "v1.5.0"
    for path in (publish(found.db), found.db.path, tmp_path / "backup.duckdb"):
        con = duckdb.connect(str(path), read_only=True)
        (tags,) = con.execute("SELECT tags FROM duckdb_databases() WHERE path = ?", [str(path)]).fetchall()[0]
        con.close()
        assert tags["storage_version"] == "v1.5.0+"


def test_a_reader_who_keeps_the_read_copy_open_stops_nothing(tmp_path: Path) -> None:
    """DBeaver and the like hold a file open: the copy they have stays as it was, the next one is put beside it."""
    found = DuckStore(tmp_path / "preferences.duckdb", wait=1)
    found.add([[prompt("Hello?")]])
    browser = duckdb.connect(str(publish(found.db)), read_only=True)
    found.add([[prompt("More?")]])
    assert publish(found.db) == read_copy(found.db.path)
    assert browser.execute("SELECT count(*) FROM prompts").fetchall() == [(1,)]
    browser.close()
    assert store.open(read_copy(found.db.path)).sql("SELECT count(*) AS n FROM prompts").rows() == [{"n": 2}]


def test_a_store_that_is_no_store_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.duckdb").write_text("not a database" * 1000)
    with pytest.raises(StoreError, match="cannot be opened as a DuckDB file"):
        store.open(tmp_path / "a.duckdb").tables()


def test_nothing_of_ours_forks() -> None:
    """A forked child shares an open connection; `subprocess` and spawn do not."""
    found = [path for package in ("loop", "judges", "store", "flows") for path in (ROOT / package).rglob("*.py")]
    assert len(found) > 100
    forks = re.compile(r"os\.fork|[\"']fork[\"']|multiprocessing\.(Process|Pool)\(|ProcessPoolExecutor\(")
    assert [str(path) for path in found if forks.search(path.read_text(encoding="utf-8"))] == []
