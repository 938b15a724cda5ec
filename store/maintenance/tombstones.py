"""The check that keeps forgotten prompts out."""

import duckdb

from sparring.loop.errors import DataError


def refuse_forgotten(con: duckdb.DuckDBPyConnection, incoming: str) -> None:
    """Raises DataError if a row of the relation `incoming`, which has a prompt_id, is of a forgotten prompt."""
    sql = f"""SELECT f.prompt_id, f.forgotten_at::DATE::VARCHAR, f.forgotten_by, f.reason FROM forgotten f
    SEMI JOIN {incoming} USING (prompt_id) ORDER BY f.prompt_id LIMIT 1"""
    for prompt_id, day, by, reason in con.execute(sql).fetchall():
        why = f": {reason}" if reason else ""
        raise DataError(
            f"{prompt_id} was forgotten on {day} by {by}{why}; it cannot be added again. Remove it from the prompt "
            "file (its tombstone: spar sql 'FROM forgotten'). To continue a run that had it, start a new one with "
            "another name and policy.model: run:NAME"
        )
