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
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import duckdb
import pyarrow as pa
from pyarrow import parquet

from sparring.loop.errors import StoreError


def parts_folder(path: Path) -> Path:
    """The folder with the parts of the store at `path`."""
    return path.with_suffix(".parts")


def write_parts(folder: Path, added: Mapping[str, pa.Table]) -> None:
    """Write rows by table, durably: on return the files are on disk under their final names."""
    for name, rows in added.items():
        if rows.num_rows:
            _write(folder / name, rows)


def _write(place: Path, rows: pa.Table) -> None:
    name = f"{time.time_ns():020d}-{secrets.token_hex(4)}.parquet"
    partial = place / f"{name}.partial"
    try:
        place.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            parquet.write_table(rows, file, compression="zstd", compression_level=1)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(place / name)
    except OSError as error:
        with suppress(OSError):  # the first error is raised
            partial.unlink(missing_ok=True)
        raise StoreError(
            f"{place} could not be written ({error}); check free space with: df -h {place.parent}. "
            "What was committed before is safe"
        ) from error


def complete(con: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Write all rows of a store that has no parts, as the first part of each table."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed here
    partial.mkdir(parents=True)
    for (name,) in con.execute("SELECT table_name FROM duckdb_tables() WHERE NOT internal").fetchall():
        if name != "schema_version":
            (partial / name).mkdir()
            to = str(partial / name / f"{time.time_ns():020d}-{secrets.token_hex(4)}.parquet").replace("'", "''")
            con.execute(f"COPY (FROM {name}) TO '{to}' (FORMAT parquet, COMPRESSION zstd)")
    partial.rename(folder)
