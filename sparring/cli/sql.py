"""`spar sql` and `spar shell`: SQL queries on the store, also while a run is live."""

import json
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from sparring.cli.common import AnyFormat, Format, Store, say
from sparring.loop.errors import ConfigError
from sparring.store import DEFAULT_PATH

if TYPE_CHECKING:
    import pyarrow as pa

    from sparring.store.db import Database

MEMORY = 3 * 2**30  # bytes: DuckDB's 2 GiB, and memory for its functions and Arrow
BINARY = ("parquet", "arrow")

Copy = Annotated[
    bool, typer.Option("--copy", help="Query the read copy beside the store, which never waits for a run.")
]
Timeout = Annotated[
    float | None, typer.Option(help="Seconds that a query may take; 30 by default, unlimited with --copy.")
]


def sql(
    query: Annotated[str | None, typer.Argument(help="One SELECT; - reads it from standard input.")] = None,
    file: Annotated[Path | None, typer.Option(help="Read the query from this file.")] = None,
    params: Annotated[str | None, typer.Option(help='Values of $names in the query: \'{"run": "tiny"}\'.')] = None,
    format: Annotated[AnyFormat | None, typer.Option(help="Output format; table by default.")] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="Maximum number of rows to write.")] = None,
    to: Annotated[Path | None, typer.Option(help="Write to this file; its extension sets the format.")] = None,
    copy: Copy = False,
    timeout: Timeout = None,
    store: Store = None,
) -> None:
    """Query the store in SQL, read-only: a query cannot write, attach, or read other files."""
    from sparring.cli.results import write
    from sparring.store.reader import answer

    text, values, shape = _text(query, file), _values(params), _shape(format, to)
    db, seconds = source(store, copy, timeout)
    with _piped(), _bounded(), answer(db, text, values, seconds=seconds, limit=limit) as batches:
        if to is None:
            write(batches, shape, sys.stdout.buffer if shape in BINARY else sys.stdout)
        else:
            _write_file(batches, shape, to, db)


def shell(
    store: Store = None,
    format: Annotated[Format, typer.Option(help="How rows are printed.")] = "table",
    copy: Copy = False,
    timeout: Timeout = None,
) -> None:
    """Open an SQL prompt on the store, read-only; the store is free for others between two queries."""
    from sparring.cli.shell import Shell

    db, seconds = source(store, copy, timeout)
    with _piped(), _bounded():
        Shell(db, seconds, format).run()


def source(store: str | None, copy: bool, timeout: float | None) -> "tuple[Database, float | None]":
    """The database to query, and how many seconds a query may take."""
    from sparring.store.db import Database
    from sparring.store.publish import read_copy
    from sparring.store.reader import SECONDS

    path = Path(store or DEFAULT_PATH)
    if not copy:
        return Database(path), SECONDS if timeout is None else timeout
    file = read_copy(path)
    if not file.is_file():
        raise ConfigError(f"there is no read copy {file}; a run with keep.read_copy writes it, or query without --copy")
    return Database(file), timeout


def _text(query: str | None, file: Path | None) -> str:
    if (query is None) == (file is None):
        raise ConfigError('give one query: spar sql "SELECT ...", or - for standard input, or --file FILE')
    if file is None:
        return sys.stdin.read() if query == "-" else str(query)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--file {file} cannot be read as text: {error}") from error


def _values(params: str | None) -> dict[str, Any]:
    """The values of $names, from JSON, which keeps numbers, texts and lists apart."""
    try:
        values = json.loads(params or "{}")
    except json.JSONDecodeError as error:
        raise ConfigError(f"""--params {params!r} is not JSON ({error}); write: '{{"run": "tiny"}}'""") from error
    if not isinstance(values, dict):
        raise ConfigError(f"""--params is {params}; expected an object of names and values: '{{"run": "tiny"}}'""")
    return values


def _shape(format: AnyFormat | None, to: Path | None) -> AnyFormat:
    ending, formats = to.suffix[1:] if to is not None else "table", get_args(AnyFormat)
    if format is None and ending not in formats:
        raise ConfigError(f"--to {to} has no extension that names a format; give --format {'|'.join(formats)}")
    shape: AnyFormat = format or ending  # type: ignore[assignment]
    if to is None and shape in BINARY and sys.stdout.isatty():
        raise ConfigError(f"--format {shape} cannot be shown on a terminal; give --to FILE.{shape}, or pipe the output")
    return shape


def _write_file(batches: "pa.RecordBatchReader", shape: AnyFormat, to: Path, db: "Database") -> None:
    """Write a whole file or none: the file gets its name when it is complete."""
    from sparring.cli.results import write

    if to.resolve().name.startswith(db.path.name) and to.resolve().parent == db.path.parent:
        raise ConfigError(f"--to {to} is a file of the store; choose another name")
    partial = to.with_name(f"{to.name}.partial")
    try:
        with partial.open("wb") if shape in BINARY else partial.open("w", encoding="utf-8") as out:
            write(batches, shape, out)
        partial.replace(to)
    except OSError as error:
        raise ConfigError(f"--to {to} cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    say(f"written to {to}")


@contextmanager
def _bounded() -> Iterator[None]:
    """Limit the memory of this process: DuckDB's own limit does not count all values, such as a huge list."""
    import psutil

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = psutil.Process().memory_info().data + MEMORY
    limits = [limit, *(each for each in (soft, hard) if each != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@contextmanager
def _piped() -> Iterator[None]:
    """A closed pipe, such as that of `head`, is no error; Ctrl-C ends the query."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for output that is flushed at exit
    except KeyboardInterrupt:
        say("spar: the query was interrupted")
        raise typer.Exit(130) from None
