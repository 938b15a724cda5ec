"""The DuckDB instance of this process, to which a store's file is attached for one transaction.

Creating an instance takes 15 ms, attaching and detaching a file takes 4, so the instance is kept.
"""

import atexit
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb

# The file format of 1.5, which the DuckDB command line, DBeaver and R can open, whether 1.5 or 2.x wrote it.
FORMAT = "v1.5.0"
MEMORY = "2GiB"
NAME = "store"  # of the attached file, in SQL

# By process id, because DuckDB's threads do not survive a fork. It is the instance of the store that was used last.
_kept: dict[int, tuple[Path, duckdb.DuckDBPyConnection]] = {}


@atexit.register
def _close() -> None:
    """Close the instance before the interpreter exits, or DuckDB complains."""
    _kept.pop(os.getpid(), None)


def attach(path: Path, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    """A connection to the tables of the file, which is created if it is missing. Raises duckdb.Error."""
    con = _engine(path).cursor()
    try:
        con.execute("SET enable_progress_bar = false")  # it would be printed to stdout, into a program's data
        mode = "READ_ONLY" if read_only else "READ_WRITE"
        con.execute(f"DETACH DATABASE IF EXISTS {NAME}")  # left by a call that was interrupted
        con.execute(f"ATTACH {quoted(path)} AS {NAME} (TYPE duckdb, {mode})")
        con.execute(f"USE {NAME}")
    except BaseException:
        detach(con)
        raise
    return con


def detach(con: duckdb.DuckDBPyConnection) -> None:
    """Detach the file. An open transaction is rolled back, and the write-ahead log is merged into the file."""
    try:
        with suppress(duckdb.TransactionException):  # usually there is none
            con.execute("ROLLBACK")
        con.execute("USE memory")
        con.execute(f"DETACH DATABASE IF EXISTS {NAME}")
    except BaseException as error:  # an interrupt, or a fatal error that ends the instance
        _kept.pop(os.getpid(), None)  # which closes the file, too
        if not isinstance(error, duckdb.Error):
            raise
    finally:
        con.close()


def _engine(path: Path) -> duckdb.DuckDBPyConnection:
    kept = _kept.get(os.getpid())
    if kept is None or kept[0] != path:
        kept = _kept[os.getpid()] = (path, duckdb.connect(config=limits(path)))
    return kept[1]


def limits(path: Path) -> dict[str, Any]:
    """The settings of a DuckDB instance for the store at `path`."""
    return {"memory_limit": MEMORY, "temp_directory": f"{path}.tmp", "storage_compatibility_version": FORMAT}


def quoted(value: object) -> str:
    """A text or path as a literal in SQL."""
    return "'" + str(value).replace("'", "''") + "'"
