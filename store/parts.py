"""Parts: the rows that each transaction added, as Parquet files that never change.

Parts are the log beside the store, `preferences.parts/<table>/<time>-<random>.parquet`. Each has rows of one table as
they were when they were added, and a damaged file is rebuilt from them (`spar store rebuild`). A transaction writes its
parts before it commits, so every committed row is in a part. Rows of a transaction that was cut off may be in a part
alone; a rerun makes the same rows.
"""

import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
import pyarrow as pa
from pyarrow import parquet

from sparring.loop.errors import StoreError
from sparring.store.catalog import tables
from sparring.store.engine import quoted


def parts_folder(path: Path) -> Path:
    """The folder with the parts of the store at `path`."""
    return path.with_suffix(".parts")


def write_parts(folder: Path, added: Mapping[str, pa.Table]) -> None:
    """Write rows by table, durably: on return the files are on disk under their final names."""
    for name, rows in added.items():
        if rows.num_rows:
            with replaced(new_part(folder / name)) as partial:
                parquet.write_table(rows, partial, compression="zstd", compression_level=1)


def new_part(place: Path, stamp: int | None = None) -> Path:
    """The name of a part to write. `stamp`: its place in the order of parts, by default the time in ns."""
    return place / f"{time.time_ns() if stamp is None else stamp:020d}-{secrets.token_hex(4)}.parquet"


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary path to write to. At the end of the block it replaces the file at `path`, complete and on disk."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        sync(partial)
        partial.replace(path)
    except (OSError, duckdb.IOException) as error:
        with suppress(OSError):  # the first error is raised
            partial.unlink(missing_ok=True)
        raise StoreError(
            f"{path} could not be written ({error}); check free space with: df -h {path.parent}. "
            "What was committed before is safe"
        ) from error


def sync(path: Path) -> None:
    """Flush a file or a folder to disk. Never call it on the store's own file: see store.db."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def copy(con: duckdb.DuckDBPyConnection, sql: str, path: Path) -> None:
    """Replace the part at `path` by the rows of a query."""
    with replaced(path) as partial:
        con.execute(f"COPY ({sql}) TO {quoted(partial)} (FORMAT parquet, COMPRESSION zstd)")
    sync(path.parent)


def complete(con: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Write all rows of a store that has no parts, as the first part of each table."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed here
    partial.mkdir(parents=True)
    for name in tables(con):
        if name != "schema_version":
            copy(con, f"FROM {name}", new_part(partial / name))
    partial.rename(folder)
