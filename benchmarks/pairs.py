"""Pairs to measure a learner on, in the columns of store.training_rows: a run's own, or random words."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from sparring.loop.tokens import Template

WORDS = (
    "the",
    "river",
    "a",
    "morning",
    "of",
    "light",
    "under",
    "old",
    "stones",
    "and",
    "two",
    "birds",
    "that",
    "answer",
)


def from_store(path: Path, run: str | None, n: int) -> pa.Table:
    from sparring.store.store import DuckStore

    store = DuckStore(path)
    info = store.run(run)
    rnd = store.last_round(info.id) if info else None
    if rnd is None:
        raise SystemExit(f"{path} has no played round of run {run!r}")
    found = store.training_rows(rnd, []).slice(0, n)
    return found.set_column(found.column_names.index("reference"), "reference", _unknown(len(found)))


def _unknown(n: int) -> pa.Array:
    """A column of references that are still to be scored."""
    return pa.array([[[None, None]]] * n, pa.list_(pa.list_(pa.list_(pa.float32()))))


def generated(folder: Path, n: int, seed: int) -> pa.Table:
    """Pairs of random words: prompts of 60 to 110 tokens, answers of 10 to 64 with their end token."""
    template, draw = Template.of(str(folder)), random.Random(seed)

    def words() -> Iterator[str]:
        text = draw.choice(WORDS)
        while True:
            yield text
            text += " " + draw.choice(WORDS)

    def prompt() -> str:
        wanted = draw.randint(60, 108)
        asked = ([{"role": "user", "content": text}] for text in words())
        return json.dumps(next(row for row in asked if len(template.prompt_ids(row)) >= wanted))

    def answer() -> list[int]:
        wanted = draw.randint(10, 64) - 1
        found = (template.tokenizer.encode(text, add_special_tokens=False) for text in words())
        return [*next(ids for ids in found if len(ids) >= wanted)[:wanted], template.tokenizer.eos_token_id]

    return pa.table(
        {
            "lesson_id": [f"pair_{i}" for i in range(n)],
            "messages": [prompt() for _ in range(n)],
            "completion_ids": [[f"chosen_{i}", f"rejected_{i}"] for i in range(n)],
            "token_ids": [[answer(), answer()] for _ in range(n)],
            "reference": _unknown(n),
            "has_sample": [False] * n,
            "sample_place": [2] * n,
            "p_chosen": [1.0] * n,
            "margin": [1.0] * n,
            "weight": [1.0] * n,
        }
    )
