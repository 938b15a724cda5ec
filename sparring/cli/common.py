"""What the commands share."""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from sparring.store import DEFAULT_PATH

PATIENCE = 0.5  # seconds that a completion waits for the store while someone is typing
Store = Annotated[
    str | None, typer.Option(envvar="SPARRING_STORE", help=f"The DuckDB file; {DEFAULT_PATH} by default.")
]
Format = Literal["table", "csv", "json", "jsonl"]
AnyFormat = Literal["table", "csv", "json", "jsonl", "parquet", "arrow"]


def say(text: str) -> None:
    """Print to stderr: stdout is for data."""
    print(text, file=sys.stderr)


def complete_run(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of runs in the store that begin with `incomplete`; none when the store cannot be read."""
    path = Path(ctx.params.get("store") or os.environ.get("SPARRING_STORE") or DEFAULT_PATH)
    if not path.is_file():
        return []
    from sparring.loop.errors import SparError
    from sparring.store.db import Database, rows

    try:
        with Database(path, wait=PATIENCE).read() as con:
            names = rows(con, "SELECT DISTINCT name FROM runs WHERE starts_with(name, ?) ORDER BY name", [incomplete])
    except SparError:  # busy, or not a store: a completion prints no message
        return []
    return [str(row["name"]) for row in names]


Run = Annotated[
    str | None,
    typer.Argument(help="Name or id of a run; the latest by default.", autocompletion=complete_run),
]
