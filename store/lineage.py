"""Walk the lineage view: from a row to all its causes, or to all its effects."""

from typing import Any, Literal

import duckdb

from store.db import rows


def walk(con: duckdb.DuckDBPyConnection, id: str, towards: Literal["causes", "effects"]) -> list[dict[str, Any]]:
    """Each row reached once, with its kind and its distance, nearest first."""
    here, there = ("id", "cause_id") if towards == "causes" else ("cause_id", "id")
    kind = "cause_kind" if towards == "causes" else "kind"
    return rows(
        con,
        f"""WITH RECURSIVE reached AS (
            SELECT {there} AS id, {kind} AS kind, 1 AS depth FROM lineage WHERE {here} = $id
            UNION
            SELECT l.{there}, l.{kind}, r.depth + 1 FROM reached r JOIN lineage l ON l.{here} = r.id
        )
        SELECT id, any_value(kind) AS kind, min(depth) AS depth FROM reached GROUP BY id ORDER BY depth, kind, id""",
        {"id": id},
    )
