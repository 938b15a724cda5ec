"""Rows of questions, and the small things that their tests make."""

from collections.abc import Sequence
from typing import Any

from sparring.loop.judgements import duel_id
from sparring.loop.types import Completion, Evaluation, Judgement, Prompt, Round
from sparring.store.questions import answer
from sparring.store.store import DuckStore
from tests.helpers.records import RUN, checkpoint, prompt, round_of

Rows = list[dict[str, Any]]


def asked(store: DuckStore, name: str, run: str | None = RUN, *columns: str) -> list[Any]:
    """The rows of a question: as tuples of `columns`, or as dicts."""
    with store.db.read() as con:
        found: Rows = answer(con, name, run=run).to_pylist()
    return [tuple(row[c] for c in columns) for row in found] if columns else found


def begin(name: str, prompts: Sequence[Prompt] = (), index: int = 1) -> Round:
    policy = checkpoint(f"{name}-initial", run=name)
    return round_of(index, policy, policy, prompts)


def prompts(name: str, n: int, split: Any = "train") -> list[Prompt]:
    return [prompt(f"{name} {split} {i}", split) for i in range(n)]


def measured(run: str, candidate: str, metric: str, value: float) -> Evaluation:
    return Evaluation(f"{run}-{candidate}-{metric}", run, 1, candidate, "rival", metric, value, None, None, 8)


def told(judge: str, a: Completion, b: Completion, first: float | None, second: float | None) -> list[Judgement]:
    """P(a beats b) with a shown first, and with a shown second."""
    return [
        Judgement(duel_id(judge, a, b, order), judge, a.id, b.id, "", "", order, p)
        for order, p in enumerate((first, second))
    ]
