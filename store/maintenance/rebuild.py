"""The rebuild of the file from its parts, and from the rows of the old file that can be read."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from sparring.loop.errors import StoreError
from sparring.store.catalog import columns_of, count, ids, keys, read_whole, tables
from sparring.store.db import Database, migrate
from sparring.store.engine import MEMORY, limits
from sparring.store.maintenance.copies import beside, forget_file
from sparring.store.maintenance.forget import erase
from sparring.store.maintenance.parts import damaged, nowhere, parts_of, read, write
from sparring.store.parts import parts_folder, sync
from sparring.store.publish import publish, read_copy
from sparring.store.store import on_conflict

# Columns that came with 0010_states.sql, as they are filled for rows of parts that were written before.
LATER: Mapping[str, Mapping[str, str]] = {
    "runs": {"kind": "coalesce(config ->> 'kind', 'loop')"},
    "judgements": {
        "status": "CASE WHEN value IS NOT NULL THEN 'answered' WHEN rationale LIKE 'no reply: %' THEN 'unreached' "
        "ELSE 'abstained' END"
    },
}
STRETCH = 122_880  # rows per DuckDB row group: damage loses whole groups


@dataclass
class Rebuilt:
    """The number of rows by table. `salvaged`: rows that no part had. `unread`: what the old file lost, in words."""

    rows: Mapping[str, int] = field(default_factory=dict)
    salvaged: dict[str, int] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    kept: str | None = None


def rebuild(db: Database, *, skip_damaged: bool = False) -> Rebuilt:
    """Rebuild the file and keep the old one beside it. Raises StoreError for damaged parts, unless they are skipped.

    A kill leaves either the old file or the new one.
    """
    parts = parts_of(parts_folder(db.path))
    if not parts and not db.path.exists():
        raise StoreError(f"there is neither a store at {db.path} nor its parts; put a backup there")
    with db.locked():
        bad = damaged(path for files in parts.values() for path in files)
        if bad and not skip_damaged:
            names = "\n".join(f"  {path}: {why}" for path, why in bad.items())
            raise StoreError(
                f"{len(bad)} parts are damaged:\n{names}\nput them back from a backup of the folder, or rebuild "
                "without them: spar store rebuild --skip-damaged (rows that the old file still has are kept)"
            )
        done = Rebuilt(without=[str(path) for path in bad])
        _salvage(db.path, bad, done)
        new = beside(db.path, "rebuilding")
        forget_file(new)
        with _new(new, db.path) as con:
            for table, files in parts_of(parts_folder(db.path)).items():
                _load(con, table, [path for path in files if path not in bad])
            erase(con)
            done.rows = {name: count(con, f'"{name}"') for name in tables(con) if name != "schema_version"}
            con.execute("CHECKPOINT")
        sync(new)
        done.kept = _exchange(db.path, new)
    if read_copy(db.path).exists():
        publish(db)
    return done


@contextmanager
def _new(path: Path, store: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    con = duckdb.connect(str(path), config=limits(store))
    try:
        migrate(con)
        yield con
    except (duckdb.IOException, duckdb.OutOfMemoryException, duckdb.TransactionException) as error:
        raise StoreError(
            f"{path} could not be written ({error}); check free space with: df -h {path.parent}. The old file and the "
            "parts are unchanged"
        ) from error
    finally:
        con.close()


def _salvage(path: Path, bad: Iterable[Path], done: Rebuilt) -> None:
    """Write the rows that only the old file has as further parts, as far as they can be read."""
    if not path.exists():
        done.unread.append(f"{path} is gone, and with it the rows that no part had")
        return
    try:
        with _old(path) as old:
            primary_keys = {name: keys(old).get(name) for name in tables(old) if name != "schema_version"}
    except duckdb.Error as error:
        done.unread.append(f"{path} cannot be opened, so the rows that no part had are lost: {_short(error)}")
        return
    existing, whole = parts_of(parts_folder(path)), _damage(path, primary_keys) is None
    for table, key in primary_keys.items():
        parts = [part for part in existing.get(table, []) if part not in bad]
        taken = _take(path, table, key, parts) if whole else _take_readable(path, table, key, parts, done)
        if taken:
            done.salvaged[table] = taken


def _take_readable(path: Path, table: str, key: str | None, parts: Sequence[Path], done: Rebuilt) -> int:
    """Write a damaged file's readable rows as parts. Each query has its own connection, as some errors end one."""
    try:
        with _old(path) as old:
            ((end,),) = old.execute(f'SELECT coalesce(max(rowid) + 1, 0) FROM "{table}"').fetchall()
    except duckdb.Error as error:
        done.unread.append(f"{table}: {_short(error)}")
        return 0
    taken = 0
    for start in range(0, int(end), STRETCH):
        where = f"rowid >= {start} AND rowid < {start + STRETCH}"
        if why := _damage(path, [table], where):
            done.unread.append(f"{table}, rows {start:,} to {min(int(end), start + STRETCH):,}: {why}")
        else:
            taken += _take(path, table, key, parts, where)
    return taken


def _damage(path: Path, names: Iterable[str], where: str = "TRUE") -> str | None:
    """Why rows of these tables cannot be read. None if they can."""
    try:
        with _old(path) as old:
            for name in names:
                read_whole(old, f'(SELECT * FROM "{name}" WHERE {where})')
    except duckdb.Error as error:
        return _short(error)
    return None


def _take(path: Path, table: str, key: str | None, parts: Sequence[Path], where: str = "TRUE") -> int:
    """Write the rows that no part has as a part. A table without a key, which is a user's own, is written whole."""
    sql = f'SELECT * FROM "{table}" WHERE {where}' if key is None else nowhere(table, key, parts, where)
    with _old(path) as old:
        return write(old, sql, parts_folder(path) / table)


def _old(path: Path) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(str(path), read_only=True, config={"memory_limit": MEMORY})


def _load(con: duckdb.DuckDBPyConnection, table: str, parts: Sequence[Path]) -> None:
    """Add rows part by part, as DuckStore.add does. A table without a key is a user's own; its last part is whole."""
    if table not in keys(con):
        if parts:
            con.execute(f'CREATE TABLE "{table}" AS FROM {read(parts[-1:])}')
        return
    stored = ids(con, f"SELECT column_name FROM duckdb_columns() WHERE table_name = '{table}'")
    for part in parts:
        columns = columns_of(con, read([part]))
        if strange := sorted(set(columns) - set(stored)):
            raise StoreError(
                f"{part} has columns that this sparring does not know: {', '.join(strange)}; install the newer version "
                "that wrote them"
            )
        values = {name: f'"{name}"' for name in columns}
        for name, sql in LATER.get(table, {}).items():  # a part that was merged has NULL in its older rows
            values[name] = f'coalesce("{name}", {sql})' if name in columns else sql
        names, filled = ", ".join(f'"{name}"' for name in values), ", ".join(values.values())
        # The first of two rows wins in one statement, so judgements with an answer are inserted first.
        for where in ("value IS NOT NULL", "value IS NULL") if table == "judgements" else ("TRUE",):
            con.execute(
                f'INSERT INTO "{table}" ({names}) SELECT {filled} FROM {read([part])} WHERE {where} '
                f"ON CONFLICT {on_conflict(table)}"
            )


def _short(error: Exception) -> str:
    return str(error).splitlines()[0]


def _exchange(path: Path, new: Path) -> str | None:
    """Put the new file in the place of the old one. The old file and its log get another name, which is returned."""
    if not path.exists():
        new.rename(path)
        sync(path.parent)
        return None
    kept = beside(path, f"damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    os.link(path, kept)  # a second name for it, so that there is a file at every moment
    log = path.with_name(f"{path.name}.wal")
    if log.exists():
        log.rename(kept.with_name(f"{kept.name}.wal"))
    new.replace(path)
    sync(path.parent)
    return str(kept)
