import re
import subprocess
import sys
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from benchmarks import store_kills
from sparring.loop.errors import StoreBusy
from sparring.store.reader import Reader
from sparring.store.store import DuckStore
from tests.helpers.forks import FORKS
from tests.helpers.paths import ROOT
from tests.helpers.records import prompt

pytestmark = pytest.mark.slow

WRITERS, CHUNKS = 4, 5

# Another program, such as a person's SQL shell: it holds DuckDB's own lock and knows nothing of ours.
SHELL = """
import sys, duckdb
con = duckdb.connect(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
con.close()
"""

# Writes 0.2 MB a chunk until the store refuses; then says why, and what is there.
FILLER = """
import random, resource, sys
from sparring.loop.errors import StoreError
from sparring.store.publish import publish
from sparring.store.store import DuckStore
from tests.helpers.records import prompt
store, noise, acknowledged = DuckStore(sys.argv[1]), random.Random(0), 0
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    for k in range(100):
        acknowledged += store.add([[prompt(noise.randbytes(100_000).hex())]])
except StoreError as error:
    why = error
try:
    copied = publish(store.db)
except StoreError as error:
    copied = error
with store.db.read() as con:
    there = con.execute("SELECT count(*) FROM prompts").fetchall()[0][0]
print(acknowledged, there, why, copied, sep="|")
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def count(store: DuckStore, table: str = "prompts") -> int:
    with store.db.read() as con:
        return int(con.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])


def write_chunks(path: Path, writer: int) -> None:
    store = DuckStore(path)
    assert store.add([prompt(f"{writer} {chunk} {k}?") for k in range(3)] for chunk in range(CHUNKS)) == 3 * CHUNKS


def read_all_the_while(path: Path, done: Event) -> None:
    notebook, seen = Reader(path), [0]
    while not done.is_set():
        seen.append(notebook.sql("SELECT count(*) AS n FROM prompts").rows()[0]["n"])
        assert seen[-1] >= seen[-2]  # what was there once stays
        assert seen[-1] % 3 == 0  # a chunk is seen whole or not at all
        done.wait(0.1)
    assert max(seen) > 0


def test_processes_write_and_read_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    DuckStore(path).add([[prompt(f"first {k}?") for k in range(3)]])
    done = FORKS.Event()
    readers = [FORKS.Process(target=read_all_the_while, args=(path, done)) for _ in range(2)]
    writers = [FORKS.Process(target=write_chunks, args=(path, n)) for n in range(WRITERS)]
    for process in (*readers, *writers):
        process.start()
    for process in writers:
        process.join(60)
    done.set()
    for process in readers:
        process.join(60)
    assert [process.exitcode for process in (*readers, *writers)] == [0] * 6
    assert count(DuckStore(path)) == 3 + 3 * CHUNKS * WRITERS


def test_another_program_is_waited_for(tmp_path: Path) -> None:
    store = DuckStore(tmp_path / "a.duckdb", wait=30)
    store.add([[prompt("Hello?")]])
    # This shell closes the store by itself, a second after it has opened it.
    shell = start(SHELL.replace("sys.stdin.readline()", "import time; time.sleep(1)"), store.db.path)
    assert shell.stdout is not None
    assert shell.stdout.readline() == "open\n"
    began = time.monotonic()
    assert store.add([[prompt("More?")]]) == 1
    assert time.monotonic() - began > 0.5
    shell.communicate(timeout=30)
    assert count(store) == 2


def test_another_program_that_stays_is_store_busy(tmp_path: Path) -> None:
    store = DuckStore(tmp_path / "a.duckdb", wait=0.5)
    store.add([[prompt("Hello?")]])
    shell = start(SHELL, store.db.path)
    assert shell.stdout is not None
    assert shell.stdout.readline() == "open\n"
    with pytest.raises(StoreBusy, match=r"another program has .*a\.duckdb open; close it and try again"):
        store.add([[prompt("More?")]])
    with pytest.raises(StoreBusy, match="another program has"):
        store.run()
    shell.communicate("\n", timeout=30)
    assert store.add([[prompt("More?")]]) == 1


def test_another_sparring_that_stays_is_store_busy(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    with DuckStore(path).db.write(), pytest.raises(StoreBusy, match=r"has held .*\.lock for .*0\.2 s; wait"):
        DuckStore(path, wait=0.2).add([[prompt("Hello?")]])


def test_a_killed_writer_leaves_every_acknowledged_row(tmp_path: Path) -> None:
    """Three of the kills of benchmarks/store_kills.py: while it migrates an old file, adds, and publishes."""
    path = store_kills.place(tmp_path, store_kills.FRESH)  # a file of the oldest schema
    found = [
        store_kills.trial(path, store_kills.start(path), number, longest=0.5)
        for number in range(store_kills.FRESH, store_kills.FRESH + 3)
    ]
    assert [each["wrong"] for each in found] == [{}] * 3
    assert all(each["said"] > 0 for each in found[1:])


def test_a_file_that_may_not_grow_keeps_what_it_has(tmp_path: Path) -> None:
    refused(start(FILLER, tmp_path / "a.duckdb", 2_000_000))


def test_a_full_disk_keeps_what_it_has(tmp_path: Path) -> None:
    # In a mount namespace of its own, so nothing is left mounted whatever happens.
    mounted = ["unshare", "--mount", "--map-root-user", "sh", "-c", 'mount -t tmpfs -o size=8m none "$0" && exec "$@"']
    if subprocess.run([*mounted, tmp_path, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    command = [*mounted, tmp_path, sys.executable, "-c", FILLER, tmp_path / "a.duckdb"]
    refused(subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE))


def refused(filler: subprocess.Popen[str]) -> None:
    """The store said what to do, after some rows, each of which is still there; and so it did when asked for a copy."""
    output, _ = filler.communicate(timeout=60)
    acknowledged, there, message, copied = output.strip().split("|")
    assert int(there) == int(acknowledged) > 3
    assert re.search("could not be (read or )?written", message)  # the file, or the parts before it
    assert "check free space with: df -h" in message
    assert "check free space with: df -h" in copied


def test_no_connection_stays_open(tmp_path: Path) -> None:
    store = DuckStore(tmp_path / "a.duckdb")
    store.add([[prompt("Hello?")]])
    assert count(store) == 1
    shell = start(SHELL, store.db.path)  # opens it read-write at once, while `store` lives
    output, _ = shell.communicate("\n", timeout=30)
    assert (output, shell.returncode) == ("open\n", 0)
