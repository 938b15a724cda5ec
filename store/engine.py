"""The DuckDB of this process, to which a store's file is attached for as long as one transaction takes.

To make a DuckDB takes 15 ms, to attach a file and to detach it 4: one is kept, and the file comes and goes.
"""

import atexit
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb

# 1.5's file format: the DuckDB command line, DBeaver and R open it too, whichever 1.5 or 2.x wrote it.
FORMAT = "v1.5.0"
MEMORY = "2GiB"
NAME = "store"  # of the attached file, in SQL

# By process, because DuckDB's threads do not live on in a fork; of the store that was asked last.
_kept: dict[int, tuple[Path, duckdb.DuckDBPyConnection]] = {}


@atexit.register
def _close() -> None:
    """DuckDB complains when it outlives the interpreter."""
    _kept.pop(os.getpid(), None)


def attach(path: Path, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    """A connection whose tables are those of the file, made where it is missing. Raises duckdb.Error."""
    con = _engine(path).cursor()
    try:
        con.execute("SET enable_progress_bar = false")  # it goes to stdout, among a program's data
        mode = "READ_ONLY" if read_only else "READ_WRITE"
        con.execute(f"DETACH DATABASE IF EXISTS {NAME}")  # under the store's lock: left by someone who was interrupted
        file = str(path).replace("'", "''")
        con.execute(f"ATTACH '{file}' AS {NAME} (TYPE duckdb, {mode})")
        con.execute(f"USE {NAME}")
    except BaseException:
        detach(con)
        raise
    return con


def detach(con: duckdb.DuckDBPyConnection) -> None:
    """Let go of the file, as closing it does: an open transaction is rolled back, what is in the log goes into it."""
    try:
        with suppress(duckdb.TransactionException):  # there is none, mostly
            con.execute("ROLLBACK")
        con.execute("USE memory")
        con.execute(f"DETACH DATABASE IF EXISTS {NAME}")
    except BaseException as error:  # an interrupt; or a fatal error, after which a DuckDB answers nothing more
        _kept.pop(os.getpid(), None)  # the file is closed together with it
        if not isinstance(error, duckdb.Error):
            raise
    finally:
        con.close()


def _engine(path: Path) -> duckdb.DuckDBPyConnection:
    kept = _kept.get(os.getpid())
    if kept is None or kept[0] != path:
        config: dict[str, Any] = {
            "memory_limit": MEMORY,
            "temp_directory": f"{path}.tmp",
            "storage_compatibility_version": FORMAT,
        }
        instance = duckdb.connect(config=config)
        kept = _kept[os.getpid()] = (path, instance)
    return kept[1]
