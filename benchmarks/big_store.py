"""Make a store of a million completions, four judgements each, and time every named question and walk on it.

    python benchmarks/big_store.py --store /tmp/big/preferences.duckdb --to benchmarks/results/store-2core.json

The rows are hashes made by big_store.sql, the same at every run; making them is not counted. They go in by
`DuckStore.ingest`, in chunks, with their Parquet parts. A store that is there already is only asked.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.hardware import describe  # noqa: E402
from sparring.store.db import table  # noqa: E402
from sparring.store.edges import KINDS  # noqa: E402
from sparring.store.lineage import history  # noqa: E402
from sparring.store.questions import QUESTIONS, Question, answer  # noqa: E402
from sparring.store.store import DuckStore  # noqa: E402

WHOLE = ("runs", "judges", "prompts", "checkpoints", "rounds", "updates", "evaluations")
BY_ROUND = ("completions", "judgements", "judge_calls", "outcomes", "pairs", "examples")
RUNS, ROUNDS = 5, 10
WALKED = ("prompt", "completion", "judgement", "pair", "example", "update", "checkpoint", "evaluation", "round", "run")
Chunk = dict[str, pa.Table]


def chunks(completions: int, rows: int) -> Iterator[Chunk]:
    """All rows of the store, about `rows` at a time."""
    with duckdb.connect() as con:
        con.execute((ROOT / "benchmarks/big_store.sql").read_text().replace("$n", str(completions)))
        yield {name: con.sql(f"FROM {name}()").to_arrow_table() for name in WHOLE}
        held: list[Chunk] = []
        for block in [(run, round) for run in range(RUNS) for round in range(ROUNDS + 1)]:
            held.append({name: con.sql(f"FROM {name}{block}").to_arrow_table() for name in BY_ROUND})
            if sum(map(count, held)) >= rows:
                yield joined(held)
                held.clear()
        if held:
            yield joined(held)


def count(chunk: Chunk) -> int:
    return sum(rows.num_rows for rows in chunk.values())


def joined(held: list[Chunk]) -> Chunk:
    return {name: pa.concat_tables([chunk[name] for chunk in held]) for name in BY_ROUND}


def fill(store: DuckStore, completions: int, rows: int) -> dict[str, Any]:
    """Add everything; returns rows, seconds and memory."""
    added, seconds, slowest = 0, 0.0, 0.0
    for chunk in chunks(completions, rows):
        began = time.monotonic()
        added += store.ingest(chunk)
        took = time.monotonic() - began
        seconds, slowest = seconds + took, max(slowest, took)
        print(f"{added:,} rows, {added / seconds:,.0f} rows/s, peak {peak_mib():,} MiB", file=sys.stderr, flush=True)
    return {
        "rows": added,
        "rows_per_second": round(added / seconds),
        "seconds": round(seconds, 1),
        "slowest_chunk_seconds": round(slowest, 2),
        "chunk_rows": rows,
        "peak_rss_mib": peak_mib(),
    }


def peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def time_questions(store: DuckStore, repeats: int) -> list[dict[str, Any]]:
    """Each question over all runs and of one run, as `spar ask` asks it: opening the file is counted."""
    return [time_question(store, question, run, repeats) for question in QUESTIONS.values() for run in (None, "run-1")]


def time_question(store: DuckStore, question: Question, run: str | None, repeats: int) -> dict[str, Any]:
    wall, cpu, rows = [], [], 0
    for _ in range(repeats):
        began, used = time.monotonic(), time.process_time()
        with store.db.read() as con:
            rows = answer(con, question.name, run=run, limit=100).num_rows
        wall.append(time.monotonic() - began)
        cpu.append(time.process_time() - used)
    found = {
        "question": question.name,
        "run": run,
        "rows": rows,
        "seconds": [round(s, 2) for s in wall],
        "cpu_seconds": [round(s, 2) for s in cpu],
    }
    print(found, file=sys.stderr, flush=True)
    return found


def time_lineage(store: DuckStore, rows: int) -> list[dict[str, Any]]:
    """Both walks from some rows of each kind, as `spar lineage` goes them: opening the file is counted."""
    with store.db.read() as con:
        ids = {kind: some(con, kind, rows) for kind in WALKED}
    return [time_walks(store, kind, chosen) for kind, chosen in ids.items()]


def some(con: duckdb.DuckDBPyConnection, kind: str, rows: int) -> list[str]:
    """Ids from all over a table, the same at every call."""
    name, key, _ = KINDS[kind]
    found = con.execute(f"SELECT {key} FROM {name} ORDER BY hash({key}) LIMIT {rows}").fetchall()
    return [id for (id,) in found]


def time_walks(store: DuckStore, kind: str, ids: list[str]) -> dict[str, Any]:
    wall, reached = [], 0
    for id in ids:
        began = time.monotonic()
        with store.db.read() as con:
            found = history(con, id)
        wall.append(time.monotonic() - began)
        reached = max(reached, len(found.causes) + len(found.effects))
    made = {"kind": kind, "most_steps": reached, "seconds": [round(s, 3) for s in sorted(wall)]}
    print(made, file=sys.stderr, flush=True)
    return made


def asked(store: DuckStore, repeats: int) -> dict[str, Any]:
    return {
        **describe(ROOT),
        "store": sizes(store),
        "questions": time_questions(store, repeats),
        "lineage": time_lineage(store, 10),
        "peak_rss_mib": peak_mib(),
    }


def sizes(store: DuckStore) -> dict[str, Any]:
    with store.db.read() as con:
        counted = table(con, "SELECT table_name, estimated_size FROM duckdb_tables() WHERE estimated_size > 0")
    held = store.db.path.parent / (store.db.path.stem + ".parts")
    return {
        "file_mib": store.db.path.stat().st_size >> 20,
        "parts_mib": sum(part.stat().st_size for part in held.rglob("*.parquet")) >> 20,
        "table_rows": dict(zip(*(counted[c].to_pylist() for c in counted.column_names), strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--completions", type=int, default=1_000_000, help="a multiple of 5,000")
    parser.add_argument("--chunk", type=int, default=250_000, help="rows of a transaction, about")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--to", type=Path, help="where to write the figures; stdout when not given")
    given = parser.parse_args()
    store, load = DuckStore(given.store), os.getloadavg()[0]
    if given.store.exists():
        found = asked(store, given.repeats)
    else:
        filled = fill(store, given.completions, given.chunk)
        again = [sys.executable, __file__, "--store", str(given.store), "--repeats", str(given.repeats)]
        # In a process of its own, as people ask.
        found = json.loads(subprocess.run(again, stdout=subprocess.PIPE, check=True).stdout) | {"ingest": filled}
    found |= {"load_before": load, "load_after": os.getloadavg()[0]}
    text = json.dumps(found, indent=1)
    print(text) if given.to is None else given.to.write_text(text + "\n")


if __name__ == "__main__":
    main()
