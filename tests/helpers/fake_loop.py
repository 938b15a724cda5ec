"""What loops of shipped fakes share: a run, its first checkpoint, prompts, and the rows of its store."""

from pathlib import Path
from typing import Any

from sparring.loop.types import Checkpoint, Prompt
from sparring.store.db import rows
from sparring.store.store import DuckStore

RUN = "run"
TABLES = ("rounds", "prompts", "completions", "judgements", "outcomes", "pairs", "logprobs", "updates", "update_steps")
INITIAL = Checkpoint("checkpoint_0", RUN, "/nowhere", None, "0" * 64)


def prompts(split: Any, n: int) -> list[Prompt]:
    return [Prompt.make([{"role": "user", "content": f"{split} {i}"}], split, "", {}) for i in range(n)]


def contents(path: Path) -> dict[str, list[dict[str, Any]]]:
    with DuckStore(path).db.read() as con:
        return {t: rows(con, f"SELECT * FROM {t} ORDER BY ALL") for t in (*TABLES, "checkpoints", "evaluations")}
