"""Several processes write to one store while others read it: is every committed row there, and how long do they wait?

    python benchmarks/store_traffic.py --writers 4 --readers 2 --seconds 120

A writer adds chunks of completions and judgements, one transaction each, and pauses; a reader asks two questions
through store.open. Waiting is the time from asking for the store's lock until having it. Prints and keeps JSON.
"""

import argparse
import json
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.hardware import describe  # noqa: E402
from sparring import store  # noqa: E402
from sparring.loop.types import Completion, Judgement, Prompt  # noqa: E402
from sparring.store.db import Database  # noqa: E402
from sparring.store.store import DuckStore  # noqa: E402

ROWS = 20  # completions a chunk, with as many judgements
RESULTS = ROOT / "benchmarks" / "results" / "store-traffic.json"


class Timed(Database):
    """Counts the seconds that it waited for the lock, and that it held it."""

    waited: list[float]
    held: list[float]

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.waited, self.held = [], []

    @contextmanager
    def locked(self) -> Iterator[None]:
        asked = time.perf_counter()
        with super().locked():
            had = time.perf_counter()
            yield
            gone = time.perf_counter()
        self.waited.append(had - asked)
        self.held.append(gone - had)


def chunk(writer: int, number: int, noise: random.Random) -> list[Completion | Judgement]:
    found: list[Completion | Judgement] = []
    for k in range(ROWS):
        id = f"completion_{writer}_{number}_{k}"
        tokens = tuple(noise.choices(range(50_000), k=64))
        text = noise.randbytes(150).hex()
        sampled = ("stop", 1.0, 1.0, k)
        where = (f"run_{writer}", number, "prompt_a", "checkpoint_a", k, "policy")
        found.append(Completion(id, *where, text, tokens, (-1.0,) * len(tokens), *sampled))
        found.append(Judgement(f"judgement_{id}", "a judge", id, None, "", "", 0, noise.random(), ""))
    return found


def write(path: Path, writer: int, seconds: float, pause: float, out: "Queue[dict[str, Any]]") -> None:
    noise, end, chunks = random.Random(writer), time.monotonic() + seconds, 0
    found = DuckStore(path)
    found.db = timed = Timed(path)
    while time.monotonic() < end:
        assert found.add([chunk(writer, chunks, noise)]) == 2 * ROWS
        chunks += 1
        time.sleep(noise.expovariate(1 / pause) if pause else 0)
    out.put({"writer": writer, "chunks": chunks, "waited": timed.waited, "held": timed.held})


def read(path: Path, seconds: float, pause: float, out: "Queue[dict[str, Any]]") -> None:
    end, asked, failures, last = time.monotonic() + seconds, 0, list[str](), 0
    took = []
    while time.monotonic() < end:
        began = time.perf_counter()
        try:
            found = store.open(path)
            n = found.sql("SELECT count(*) AS n FROM judgements").rows()[0]["n"]
            if n < last or n % ROWS:
                failures.append(f"{n} judgements after {last}")
            last = n
            found.sql("SELECT run_id, count(*) FROM completions GROUP BY run_id").arrow()
        except Exception as error:  # whatever it is, it is what this counts
            failures.append(repr(error))
        asked += 2
        took.append((time.perf_counter() - began) / 2)
        time.sleep(pause)
    out.put({"reader": True, "asked": asked, "failures": failures, "took": took})


def quantiles(values: list[float]) -> dict[str, float]:
    """In seconds."""
    cuts = statistics.quantiles(values, n=20)
    return {"p50": round(cuts[9], 3), "p95": round(cuts[18], 3), "max": round(max(values), 3), "n": len(values)}


def traffic(path: Path, writers: int, readers: int, seconds: float, pause: float, rest: float) -> dict[str, Any]:
    spawn = multiprocessing.get_context("spawn")
    out = spawn.Queue()
    DuckStore(path).add([[Prompt("prompt_a", ({"role": "user", "content": "Hello?"},), "train", "made up", {})]])
    started = [spawn.Process(target=write, args=(path, k, seconds, pause, out)) for k in range(writers)]
    started += [spawn.Process(target=read, args=(path, seconds, rest, out)) for _ in range(readers)]
    for process in started:
        process.start()
    said = [out.get(timeout=seconds + 120) for _ in started]
    for process in started:
        process.join()
    wrote, asked = [each for each in said if "writer" in each], [each for each in said if "reader" in each]
    committed = ROWS * sum(each["chunks"] for each in wrote)
    tables = ("completions", "judgements")
    there = {t: store.open(path).sql(f"SELECT count(*) AS n FROM {t}").rows()[0]["n"] for t in tables}
    return {
        "writers": writers, "readers": readers, "seconds": seconds, "pause": pause, "rest": rest,
        "committed_rows_each": committed, "present_rows": there,
        "lost": {name: committed - n for name, n in there.items()},
        "failed_processes": sum(process.exitcode != 0 for process in started),
        "writer_wait_s": quantiles([w for each in wrote for w in each["waited"]]),
        "writer_held_s": quantiles([h for each in wrote for h in each["held"]]),
        "chunks_a_second": round(sum(each["chunks"] for each in wrote) / seconds, 2),
        "questions": sum(each["asked"] for each in asked),
        "question_s": quantiles([t for each in asked for t in each["took"]]) if readers else None,
        "reader_failures": [f for each in asked for f in each["failures"]],
        "made": describe(ROOT),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between a writer's chunks, on average")
    parser.add_argument("--rest", type=float, default=0.5, help="seconds between a reader's questions")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = traffic(
            Path(folder) / "preferences.duckdb", given.writers, given.readers, given.seconds, given.pause, given.rest
        )
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
