"""Kill a writer of the store with SIGKILL at random moments: does the file open, and is every acknowledged row there?

    python benchmarks/store_kills.py --kills 200 --folder /tmp/store-kills

The writer adds chunks (small ones, and one in five of 2,000 completions), publishes the read copy, and, on a fresh
file or one of the oldest schema, migrates. It prints each id after `add` has returned: these are acknowledged. After
each kill the store must open, hold them all, pass the rules of `spar store check`, read in its published copy, and take
another chunk. Progress is kept in the folder: run it again to go on.
"""

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sparring.loop.types import Completion, Record  # noqa: E402
from sparring.store.db import Database, migrations  # noqa: E402
from sparring.store.maintenance.check import check  # noqa: E402
from sparring.store.publish import publish, read_copy  # noqa: E402
from sparring.store.store import DuckStore  # noqa: E402
from tests.helpers.records import INFO, checkpoint, completion, judgement, prompt, round_of  # noqa: E402

BIG, EVERY, FRESH = 2_000, 5, 8  # completions of a big chunk; one in so many is big; a new file every so many kills
WRITER = "import sys; sys.path.insert(0, sys.argv[1]); from benchmarks.store_kills import write; write(sys.argv[2])"


def write(path: str) -> None:
    """For ever: add, say so, and now and then publish. Starts at a line on stdin."""
    print("ready", flush=True)
    sys.stdin.readline()
    noise, found = random.Random(path + str(time.time_ns())), DuckStore(path)
    found.add([base()])
    for number in range(1_000_000):
        chunk = records(noise, BIG if number % EVERY == EVERY - 1 else noise.randint(1, 20))
        found.add([chunk])
        print(*(each.id for each in chunk if isinstance(each, Completion)), flush=True)
        if number % 3 == 2:
            publish(found.db)


def base() -> list[Record]:
    """What completions refer to; the same every time."""
    return [INFO, checkpoint("a"), prompt("Hello?")]


def records(noise: random.Random, n: int) -> list[Record]:
    """Completions of one prompt with a judgement each, under names that nobody else gives."""
    policy, of, stem = checkpoint("a"), prompt("Hello?"), noise.randbytes(8).hex()
    rnd = round_of(0, policy, policy, ())
    text = noise.randbytes(200).hex()
    one = completion(rnd, of, token_ids=tuple(range(64)), logprobs=(-0.5,) * 64)
    answers = [replace(one, id=f"completion_{stem}_{k}", text=f"{text} {k}", seed=k, sample=k) for k in range(n)]
    return [*answers, *(judgement(each, 0.5) for each in answers)]


def old_file(path: Path) -> None:
    """A store of the oldest schema that can be opened, so that the writer begins with every migration since."""
    import duckdb

    number, file = migrations()[0]
    con = duckdb.connect(str(path), config={"storage_compatibility_version": "v1.5.0"})
    con.execute(file.read_text())
    con.execute(
        "CREATE TABLE schema_version (version INTEGER PRIMARY KEY, name VARCHAR NOT NULL, sha256 VARCHAR NOT NULL, "
        "applied_at TIMESTAMPTZ NOT NULL DEFAULT now())"
    )
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    con.execute("INSERT INTO schema_version (version, name, sha256) VALUES (?, ?, ?)", [number, file.stem, sha256])
    con.close()


def start(path: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITER, str(ROOT), str(path)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def kill(writer: "subprocess.Popen[str]", seconds: float, *, early: bool) -> list[str]:
    """The ids that it acknowledged before it was killed, `seconds` after its first chunk, or after it began."""
    assert writer.stdin is not None
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    writer.stdin.write("go\n")
    writer.stdin.flush()
    said = "" if early else writer.stdout.readline()
    time.sleep(seconds)
    assert writer.poll() is None, "the writer ended by itself"
    writer.send_signal(signal.SIGKILL)
    said += writer.communicate(timeout=60)[0]
    # A line that was cut short was not said; its rows may be there all the same.
    return [id for line in said.splitlines(keepends=True) if line.endswith("\n") for id in line.split()]


def verify(path: Path, acknowledged: set[str]) -> dict[str, Any]:
    """What is wrong, by name; nothing where all is well."""
    wal = path.with_name(f"{path.name}.wal").exists()
    if not path.exists():
        return {"wal": wal, "wrong": {"acknowledged, and no file": len(acknowledged)} if acknowledged else {}}
    wrong: dict[str, Any] = {}
    with Database(path, wait=30).read() as con:
        there = {id for (id,) in con.execute("SELECT completion_id FROM completions").fetchall()}
    if lost := acknowledged - there:
        wrong["lost"] = sorted(lost)
    wrong |= {each.name: each.found for each in check(Database(path))[1] if not each.ok}
    if read_copy(path).exists():
        with Database(read_copy(path)).read() as con:
            if not con.execute("SELECT count(*) FROM completions").fetchall()[0][0] <= len(there):
                wrong["copy"] = "has more than the store"
    one = prompt(f"After kill {time.time_ns()}?")
    if DuckStore(path).add([[one]]) != 1:
        wrong["add"] = "refused"
    return {"wal": wal, "rows": len(there), "wrong": wrong}


def place(folder: Path, number: int) -> Path:
    """A file serves FRESH kills; every second file begins at the oldest schema."""
    path = folder / f"{number // FRESH:03d}" / "preferences.duckdb"
    if not path.parent.exists():
        path.parent.mkdir(parents=True)
        if (number // FRESH) % 2:
            old_file(path)
    return path


def trial(path: Path, writer: "subprocess.Popen[str]", number: int, longest: float) -> dict[str, Any]:
    """One kill; a file's first one is early, while it migrates."""
    seconds = random.Random(number).uniform(0, longest)
    said = kill(writer, seconds, early=number % FRESH == 0)
    kept = path.with_suffix(".acknowledged")
    with kept.open("a") as file:
        file.writelines(f"{id}\n" for id in said)
    acknowledged = set(kept.read_text().split())
    return {"kill": number, "seconds": round(seconds, 3), "said": len(said), **verify(path, acknowledged)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--longest", type=float, default=2.0, help="seconds a writer has at most, before a kill")
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    log = given.folder / "kills.jsonl"
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    waiting = start(place(given.folder, len(done)))  # imports while the store of the kill before is looked at
    for number in range(len(done), given.kills):
        writer, waiting = waiting, start(place(given.folder, number + 1))
        done.append(trial(place(given.folder, number), writer, number, given.longest))
        with log.open("a") as file:
            file.write(json.dumps(done[-1]) + "\n")
        print(json.dumps(done[-1]), flush=True)
    waiting.kill()
    bad = Counter(name for each in done for name in each["wrong"])
    print(
        f"{len(done)} kills: {sum(each['said'] for each in done)} rows acknowledged, {dict(bad) or 'nothing'} wrong; "
        f"{sum(each['wal'] for each in done)} left a write-ahead log, {sum(not each['said'] for each in done)} before "
        "the first chunk was acknowledged"
    )
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
