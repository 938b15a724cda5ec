"""Copies of the whole store, compared with it row by row: a backup, and the file without its free blocks."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from sparring.loop.errors import StoreError
from sparring.store.catalog import read_whole, tables
from sparring.store.db import Database, in_use
from sparring.store.engine import FORMAT, limits, quoted
from sparring.store.parts import sync


def backup(db: Database, to: Path) -> dict[str, int]:
    """Copy the store to a new file `to`. Returns the number of rows by table.

    Writers wait meanwhile. Raises StoreError if the file exists, or the disk is full.
    """
    to = to.expanduser().resolve()
    if to.exists():
        raise StoreError(f"{to} exists, and a backup does not overwrite files; give another name")
    partial = to.with_name(f"{to.name}.partial")
    if not to.parent.is_dir():
        raise StoreError(f"there is no folder {to.parent}; create it, or give another name")
    with db.at_rest(), _copied(db, partial) as counts:
        partial.rename(to)
        sync(to.parent)
    return counts


def compact(db: Database) -> tuple[int, int]:
    """Rewrite the file without the blocks of deleted rows. Returns its bytes before and after.

    A kill leaves either the old file or the new one.
    """
    with db.at_rest():
        before = db.path.stat().st_size
        with _copied(db, beside(db.path, "compacting")) as counts:
            assert counts  # a store has tables
            beside(db.path, "compacting").replace(db.path)
            sync(db.path.parent)
        shutil.rmtree(f"{db.path}.tmp", ignore_errors=True)  # spilled by a query that was killed
        return before, db.path.stat().st_size


def beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.stem}.{what}{path.suffix}")


def forget_file(path: Path) -> None:
    """Remove an unfinished or unused database file, with its log."""
    path.unlink(missing_ok=True)
    path.with_name(f"{path.name}.wal").unlink(missing_ok=True)


@contextmanager
def _copied(db: Database, to: Path) -> Iterator[dict[str, int]]:
    """A copy at `to` that has every row of the store. It is removed at the end, unless the block has moved it."""
    if not db.path.exists():
        raise StoreError(f"there is no store at {db.path}; give --store PATH")
    forget_file(to)  # left by a process that was killed
    con = duckdb.connect(config=limits(db.path))
    try:
        con.execute("SET preserve_insertion_order = false")
        con.execute(f"ATTACH {quoted(db.path)} AS old (READ_ONLY)")
        con.execute(f"ATTACH {quoted(to)} AS new (STORAGE_VERSION '{FORMAT}')")
        con.execute("COPY FROM DATABASE old TO new")
        con.execute("CHECKPOINT new")
        counts = _compared(con, db.path, to)
        con.execute("DETACH new")
        sync(to)
        yield counts
    except duckdb.Error as error:
        if "could not set lock" in str(error).lower():
            raise in_use(db.path, error) from error
        raise StoreError(
            f"{db.path} could not be copied to {to} ({error}). The store is unchanged; check free space with: df -h "
            f"{to.parent}, and the file with: spar store check"
        ) from error
    finally:
        con.close()
        forget_file(to)


def _compared(con: duckdb.DuckDBPyConnection, path: Path, to: Path) -> dict[str, int]:
    counts = {}
    for table in tables(con, "old"):
        here, there = read_whole(con, f'old."{table}"'), read_whole(con, f'new."{table}"')
        if here != there:
            raise StoreError(f"the copy {to} has other rows than {path} in {table}; the store is unchanged, try again")
        counts[table] = here[0]
    return counts


def remove_durably(paths: list[Path]) -> list[Path]:
    """Remove files and folders. Returns those that existed."""
    there = [path for path in paths if path.exists()]
    for path in there:
        shutil.rmtree(path) if path.is_dir() else os.unlink(path)
    return there
