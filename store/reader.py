"""SQL queries on the store, from notebooks, the command line and other programs.

A query runs under the store's lock, within a time limit, and its rows are buffered. No run waits for whoever reads
them.
"""

import html
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import IO, Any

import duckdb
import pyarrow as pa

from sparring.loop.errors import ConfigError, EnvironmentProblem, StoreError
from sparring.store.db import Database
from sparring.store.sealed import check_question

SECONDS = 30.0  # a query's time limit: half of what a run waits for the store before it gives up
BATCH = 10_000  # rows in memory at once
IN_MEMORY = 32 * 2**20  # bytes of a result; a larger one goes to a temporary file
SHOWN = 20  # rows that a notebook shows

TABLES = """SELECT table_name AS name, comment, estimated_size AS rows, (
        SELECT list(column_name ORDER BY column_index) FROM duckdb_columns() c WHERE c.table_oid = t.table_oid
    ) AS columns
    FROM duckdb_tables() t WHERE NOT internal ORDER BY name"""
VIEWS = """SELECT view_name AS name, comment, (
        SELECT list(column_name ORDER BY column_index) FROM duckdb_columns() c WHERE c.table_oid = v.view_oid
    ) AS columns
    FROM duckdb_views() v WHERE NOT internal ORDER BY name"""
COLUMNS = """SELECT column_name AS name, data_type AS type, is_nullable AS nullable, comment FROM duckdb_columns()
    WHERE NOT internal AND table_name = $name ORDER BY column_index"""


class Rows:
    """The result of a query, in memory. Arrow's C stream lets Polars, pandas and DuckDB read it without a copy."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def arrow(self) -> pa.Table:
        return self._table

    def polars(self) -> Any:
        """A polars.DataFrame."""
        return _library("polars").from_arrow(self._table)

    def pandas(self) -> Any:
        """A pandas.DataFrame."""
        _library("pandas")
        return self._table.to_pandas()

    def rows(self) -> list[dict[str, Any]]:
        """Each row as a dict. A column name that is repeated gets a number."""
        return list(self._table.rename_columns(distinct(self.columns)).to_pylist())

    @property
    def columns(self) -> list[str]:
        return list(self._table.column_names)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        columns = ", ".join(self.columns) or "nothing"
        return f"{len(self)} rows of {columns}; see .rows(), .arrow(), .polars(), .pandas()"

    def _repr_html_(self) -> str:
        """HTML for notebooks. Texts are escaped, because models wrote them."""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns)
        shown = zip(*(column.to_pylist() for column in self._table.slice(0, SHOWN).columns), strict=True)
        cells = (["" if value is None else html.escape(str(value)) for value in row] for row in shown)
        body = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in cells)
        note = f"<p>{len(self)} rows" + (f", the first {SHOWN} shown" if len(self) > SHOWN else "") + "</p>"
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


class Reader:
    """A store to query. The file is closed between queries, so a run can continue beside an open notebook."""

    def __init__(self, path: str | Path, *, wait: float = 60.0, seconds: float | None = SECONDS) -> None:
        self._db = Database(path, wait=wait)
        self._seconds = seconds
        if not self._db.path.is_file():
            raise StoreError(f"there is no store at {self._db.path}; start one with: spar run CONFIG")

    def sql(self, query: str, /, **parameters: Any) -> Rows:
        """The rows of one SELECT; `$run` in it is the parameter `run`. Raises ConfigError when it fails."""
        with answer(self._db, query, parameters, seconds=self._seconds) as batches:
            return Rows(batches.read_all())

    def tables(self) -> Rows:
        """name, comment, rows (about), columns of each table."""
        return self.sql(TABLES)

    def views(self) -> Rows:
        """name, comment, columns of each view. The views answer the usual questions."""
        return self.sql(VIEWS)

    def columns(self, name: str) -> Rows:
        """name, type, nullable, comment of each column of a table or view."""
        return self.sql(COLUMNS, name=name)

    def __repr__(self) -> str:
        return f"store.open({str(self._db.path)!r})"


@contextmanager
def answer(
    db: Database,
    sql: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    seconds: float | None,
    limit: int | None = None,
) -> Iterator[pa.RecordBatchReader]:
    """The rows of one query, at most `limit`, in batches. The store is closed before they are read.

    Raises ConfigError if `sql` is not a query, fails, or takes longer than `seconds`. Ctrl-C ends the query.
    """
    check_question(sql)
    with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as file:
        with db.read(sealed=True) as con, ThreadPoolExecutor(1) as worker:
            # in a thread, because DuckDB blocks the one it runs in, and signals would not be handled
            _wait(con, worker.submit(_spool, con, sql, parameters or {}, file, limit), seconds)
        file.seek(0)
        with pa.ipc.open_stream(file) as batches:
            yield batches


def _wait(con: duckdb.DuckDBPyConnection, answered: "Future[None]", seconds: float | None) -> None:
    try:
        if not wait([answered], seconds).done:
            raise ConfigError(
                f"the query was stopped after {seconds:g} s, because a run may be waiting for the store; narrow it, "
                "allow more time with --timeout, or query the read copy, which no run waits for: spar sql --copy"
            )
    finally:
        while not answered.done():
            con.interrupt()  # repeated, because an interrupt between two steps is lost
            wait([answered], 0.05)
    answered.result()


def _spool(
    con: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, Any], file: IO[bytes], limit: int | None
) -> None:
    try:
        batches = con.sql(sql, params=dict(parameters) or None).to_arrow_reader(BATCH)
    except (duckdb.BinderException, duckdb.CatalogException) as error:
        raise _failed(_with_place(con, sql, parameters) or error) from error
    except (duckdb.Error, MemoryError) as error:
        raise _failed(error) from error
    with pa.ipc.new_stream(file, batches.schema) as stream:
        for batch in _first(batches, limit):
            stream.write_batch(batch)


def _failed(error: Exception | str) -> ConfigError:
    if "Out of Memory" in str(error) or isinstance(error, MemoryError):
        return ConfigError(
            "the query failed: it needs more memory than the 2 GiB that a query may use; filter or group before joins "
            "and sorts, or select fewer columns"
        )
    return ConfigError(f"the query failed: {error}")


def _with_place(con: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, Any]) -> str | None:
    """The error message with the line and position, which relations leave out."""
    try:
        con.execute(sql, dict(parameters) or None)
    except duckdb.Error as error:
        return str(error)
    return None


def _first(batches: pa.RecordBatchReader, limit: int | None) -> Iterator[pa.RecordBatch]:
    left = limit
    while left is None or left > 0:
        try:
            batch = batches.read_next_batch()
        except StopIteration:
            return
        except (OSError, pa.ArrowException, MemoryError) as error:  # how Arrow raises a DuckDB error in a later row
            raise _failed(error) from error
        yield batch if left is None else batch.slice(0, left)
        left = left and max(0, left - batch.num_rows)


def distinct(names: Sequence[str]) -> list[str]:
    """Column names, with a number added to repeated ones: joins repeat names, and a row is a dict."""
    taken: list[str] = []
    for name in names:
        others = (f"{name}_{k}" for k in count(1))
        taken.append(name if name not in taken else next(n for n in others if n not in {*names, *taken}))
    return taken


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise EnvironmentProblem(f"{name} is not installed; install it with: pip install {name}") from error
