"""Removal of prompts and all rows that came from them, from the file, its parts and its copies. A tombstone stays."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from sparring.loop.errors import StoreError
from sparring.store.catalog import columns_of, count, ids, tables
from sparring.store.db import Database
from sparring.store.maintenance.copies import compact, remove_durably
from sparring.store.maintenance.parts import damaged, parts_of, read
from sparring.store.maintenance.prompt_rows import GONE_IDS, LEARNED, LISTED, UNLISTED, condition, conditions, mark
from sparring.store.parts import copy, parts_folder, write_parts
from sparring.store.publish import publish, read_copy


@dataclass(frozen=True)
class Plan:
    """The rows that forgetting prompts removes, and the runs, updates and checkpoints that learned from them."""

    prompt_ids: Sequence[str]
    again: Sequence[str]  # forgotten before, but files may still have rows of them
    removed: Mapping[str, int] = field(default_factory=dict)  # rows by table
    rounds: int = 0  # whose lists lose the prompts
    run_ids: Sequence[str] = ()
    update_ids: Sequence[str] = ()
    checkpoint_ids: Sequence[str] = ()


def plan(db: Database, prompt_ids: Sequence[str]) -> Plan:
    """What `forget` would remove. Raises StoreError for an id that is neither a prompt here nor a forgotten one."""
    with db.read() as con:
        return _plan(con, prompt_ids)


def forget(db: Database, prompt_ids: Sequence[str], reason: str, by: str) -> Plan:
    """Remove the prompts and all rows that came from them. Returns what was removed. Raises as `plan` does.

    A kill leaves either the prompts or a tombstone. With a tombstone, files may still have rows until the same call is
    repeated.
    """
    folder = parts_folder(db.path)
    if bad := damaged(path for parts in parts_of(folder).values() for path in parts):
        raise StoreError(
            f"{len(bad)} parts are damaged and may have rows to forget, the first: {next(iter(bad))}; move them away, "
            "write their rows again with spar store compact, and repeat the command"
        )
    with db.at_rest():
        with db.write() as con:
            done = _plan(con, prompt_ids)
            for prompt_id in done.prompt_ids:
                _bury(con, _plan(con, [prompt_id]), reason, by)
            write_parts(folder, {"forgotten": con.sql("FROM forgotten").to_arrow_table()})  # a row counts once
            erase(con)
        _erase_parts(db, folder)
        compact(db)
        remove_durably([*folder.glob("*/*.partial"), *older_copies(db.path)])
        if read_copy(db.path).exists():
            publish(db)
    return done


def older_copies(path: Path) -> list[Path]:
    """Files that rebuilds kept and kills left beside the store. They may have rows that were removed."""
    kinds = ("damaged-*", "compacting*", "rebuilding*", "read*.partial")
    return [file for kind in kinds for file in sorted(path.parent.glob(f"{path.stem}.{kind}"))]


def erase(con: duckdb.DuckDBPyConnection) -> None:
    """Delete the rows that belong to prompts with a tombstone."""
    sources = {name: f'"{name}"' for name in tables(con)}
    mark(con, ids(con, "SELECT prompt_id FROM forgotten"), sources)
    for name, where in conditions(con, sources).items():
        con.execute(f'DELETE FROM "{name}" WHERE {where}')
    con.execute(f"UPDATE rounds SET prompt_ids = {UNLISTED} FROM {GONE_IDS} WHERE {LISTED}")


def _plan(con: duckdb.DuckDBPyConnection, prompt_ids: Sequence[str]) -> Plan:
    con.execute("CREATE OR REPLACE TEMP TABLE named AS SELECT unnest(?::VARCHAR[]) AS prompt_id", [prompt_ids])
    here = ids(con, "FROM prompts SEMI JOIN named USING (prompt_id) SELECT prompt_id")
    again = ids(con, "FROM forgotten SEMI JOIN named USING (prompt_id) SELECT prompt_id")
    if strange := sorted(set(prompt_ids) - {*here, *again}):
        raise StoreError(
            f"the store has no prompt {strange[0]!r}; see: spar sql 'SELECT prompt_id, messages FROM prompts', or give "
            "--text for what it says"
        )
    sources = {name: f'"{name}"' for name in tables(con)}
    mark(con, here, sources)
    counts = {name: count(con, f'"{name}" WHERE {where}') for name, where in conditions(con, sources).items()}
    removed = {name: n for name, n in counts.items() if n}
    return Plan(here, again, removed, count(con, f"rounds WHERE {LISTED}"), *(ids(con, sql) for sql in LEARNED))


def _bury(con: duckdb.DuckDBPyConnection, one: Plan, reason: str, by: str) -> None:
    con.execute(
        """INSERT INTO forgotten (prompt_id, reason, forgotten_by, removed, run_ids, update_ids, checkpoint_ids)
        VALUES (?, ?, ?, ?, ?, ?, ?)""",
        [one.prompt_ids[0], reason, by, json.dumps(one.removed), one.run_ids, one.update_ids, one.checkpoint_ids],
    )


def _erase_parts(db: Database, folder: Path) -> None:
    """Rewrite each part that has a row of a forgotten prompt. In this order, a kill leaves the rest recognizable."""
    with db.read() as con:
        gone = ids(con, "SELECT prompt_id FROM forgotten")
    by_table = parts_of(folder)
    with duckdb.connect() as con:
        sources = {name: read(parts) for name, parts in by_table.items()}
        mark(con, gone, sources)
        for name, where in {"rounds": LISTED, **conditions(con, sources)}.items():
            if name not in by_table:
                continue
            filed = read(by_table[name], ", filename = true")
            for path in map(Path, ids(con, f"SELECT DISTINCT filename FROM {filed} WHERE {where}")):
                copy(con, _without(con, name, path), path)


def _without(con: duckdb.DuckDBPyConnection, name: str, path: Path) -> str:
    """SQL for the rows of a part that stay."""
    if name == "rounds":
        return f"SELECT r.* REPLACE ({UNLISTED} AS prompt_ids) FROM {read([path])} r, {GONE_IDS}"
    return f"FROM {read([path])} WHERE ({condition(columns_of(con, read([path])))}) IS NOT TRUE"
