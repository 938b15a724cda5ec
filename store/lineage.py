"""The causes and the effects of a row: a walk from row to row, level by level, along store.edges."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import duckdb

from sparring.loop.errors import StoreError
from sparring.store.db import table
from sparring.store.edges import CAUSES, EFFECTS, KINDS, Edge
from sparring.store.engine import quoted
from sparring.store.provenance import provenance

Direction = Literal["causes", "effects"]
EDGES: dict[Direction, Sequence[Edge]] = {"causes": CAUSES, "effects": EFFECTS}
EXCERPT = 80  # characters


@dataclass(frozen=True)
class Step:
    """A row that the walk reached from the row `of`, whose `role` it is. `left_out` counts similar rows not shown."""

    id: str
    kind: str
    label: str
    role: str
    of: str
    depth: int
    left_out: int = 0


def kind_of(con: duckdb.DuckDBPyConnection, id: str) -> str:
    """The kind of the row with this id. Raises StoreError if there is none."""
    guess = id.partition("_")[0]  # ids begin with their kind, so its table is tried first
    for kind in sorted(KINDS, key=lambda kind: kind != guess):
        name, key, _ = KINDS[kind]
        if con.execute(f"SELECT 1 FROM {name} WHERE {key} = ? LIMIT 1", [id]).fetchall():
            return kind
    raise StoreError(f"no row has the id {id!r}; ids look like completion_1a2b..., list some with: spar sql")


def walk(con: duckdb.DuckDBPyConnection, id: str, towards: Direction, limit: int | None = 10) -> list[dict[str, Any]]:
    """Each row that the walk reaches, once, nearest first, with the fields of Step.

    From one row, at most `limit` rows of a kind are followed, and the last one has the number of those left out. A walk
    ends at checkpoints and at what a checkpoint wrote, where another history begins: start another walk there. Without
    a limit it continues through them, and nothing is left out.
    """
    start = Step(id, kind_of(con, id), "", "", "", 0)
    steps, level = {id: start}, [start]
    while level:
        reached: list[Step] = []
        for edge, ids in _ways(level, towards, limit is None):
            for row in _along(con, edge, ids, limit):
                if row["id"] not in steps:
                    steps[row["id"]] = Step(depth=level[0].depth + 1, kind=edge.other, role=edge.role, **row)
                    reached.append(steps[row["id"]])
        level = reached
    return [asdict(step) for step in steps.values() if step.depth]


@dataclass(frozen=True)
class History:
    """The causes and the effects of a row, and for a checkpoint the updates that shaped it."""

    kind: str
    causes: list[dict[str, Any]]
    effects: list[dict[str, Any]]
    updates: list[dict[str, Any]] | None


def history(con: duckdb.DuckDBPyConnection, id: str, limit: int | None = 10) -> History:
    """Both walks from a row. Raises StoreError if no row has this id."""
    kind = kind_of(con, id)
    shaped = provenance(con, id) if kind == "checkpoint" else None
    return History(kind, walk(con, id, "causes", limit), walk(con, id, "effects", limit), shaped)


def _ways(level: Sequence[Step], towards: Direction, whole: bool) -> Iterable[tuple[Edge, list[str]]]:
    """The edges to follow from the rows of a level, each with the ids of the rows it starts from."""
    by_kind = defaultdict(list)
    for step in level:
        ends = step.role == "wrote" or (step.kind == "checkpoint" and step.role not in ("candidate", "after"))
        if whole or step.depth == 0 or not ends:
            by_kind[step.kind].append(step.id)
    for edge in EDGES[towards]:
        if edge.kind in by_kind and (whole or level[0].depth == 0 or not edge.first):
            yield edge, by_kind[edge.kind]


def _along(con: duckdb.DuckDBPyConnection, edge: Edge, ids: Sequence[str], limit: int | None) -> list[dict[str, Any]]:
    """The rows that the edge leads to, in the order of their ids, at most `limit` from each of these rows."""
    if edge.via:
        between = table(con, edge.via.format(ids=_literals(ids)))
        if not between.num_rows:
            return []
        ids = between["key"].unique().to_pylist()
        con.register("a", between)
    sql = edge.find.format(ids=_literals(ids))
    if limit is None:
        query = f'SELECT "of", id, 0 FROM ({sql}) WHERE id IS NOT NULL ORDER BY ALL'
    else:
        smallest = f"unnest(min(id, {limit:d})) AS id, greatest(count(id) - {limit:d}, 0)"
        query = f'SELECT "of", {smallest} FROM ({sql}) GROUP BY "of" ORDER BY ALL'
    reached = con.execute(query).fetchall()  # a walk is many small queries, and Arrow tables take twice as long
    labels = _labels(con, edge.other, [id for _, id, _ in reached])
    shown = [each for each in reached if each[1] in labels]
    last = {of: id for of, id, _ in shown}  # it gets the number of those left out
    return [
        {"of": of, "id": id, "left_out": left_out if id == last[of] else 0, "label": labels[id]}
        for of, id, left_out in shown
    ]


def _labels(con: duckdb.DuckDBPyConnection, kind: str, ids: Sequence[str]) -> dict[str, str]:
    """The labels of the rows that exist, by id."""
    if not ids:
        return {}
    name, key, label = KINDS[kind]
    sql = f"SELECT {key}, left(replace({label}, chr(10), ' '), {EXCERPT}) FROM {name} WHERE {key} IN ({_literals(ids)})"
    return dict(con.execute(sql).fetchall())


def _literals(ids: Sequence[str]) -> str:
    return ", ".join(map(quoted, ids))
