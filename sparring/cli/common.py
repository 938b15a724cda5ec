"""What the commands share: options, how a store is opened, a run found, and JSON printed."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sparring.loop.errors import SparError, StoreError
from sparring.store import DEFAULT_PATH

if TYPE_CHECKING:
    from sparring.loop.types import RunInfo
    from sparring.store.store import DuckStore

PATIENCE = 0.5  # seconds that a completion waits for the store while someone is typing


def complete_run(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of runs in the store that begin with `incomplete`; none when the store cannot be read."""
    path = Path(ctx.params.get("store") or os.environ.get("SPARRING_STORE") or DEFAULT_PATH)
    if not path.is_file():
        return []
    from sparring.store.db import Database, rows

    try:
        with Database(path, wait=PATIENCE).read() as con:
            names = rows(con, "SELECT DISTINCT name FROM runs WHERE starts_with(name, ?) ORDER BY name", [incomplete])
    except SparError:  # busy, or not a store: a completion prints no message
        return []
    return [str(row["name"]) for row in names]


Store = Annotated[
    str | None, typer.Option(envvar="SPARRING_STORE", help=f"The DuckDB file; {DEFAULT_PATH} by default.")
]
Run = Annotated[
    str | None, typer.Argument(help="Name or id of a run; the latest by default.", autocompletion=complete_run)
]
OfRun = Annotated[
    str | None, typer.Option("--run", help="Name or id of a run; every run by default.", autocompletion=complete_run)
]
Format = Literal["table", "csv", "json", "jsonl"]
AnyFormat = Literal["table", "csv", "json", "jsonl", "parquet", "arrow"]
AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override, e.g. learn.beta=0.2")]
NoPrefect = Annotated[bool, typer.Option("--no-prefect", help="Run the same steps without Prefect.")]


def overrides(changes: Sequence[str] | None, **options: object) -> list[str]:
    """The changes of --set and of other options, as `key=value`."""
    return [*(changes or ()), *(f"{key}={value}" for key, value in options.items() if value)]


def open_store(path: str | None, wait: float = 60.0) -> "DuckStore":
    from sparring.store.store import DuckStore

    return DuckStore(path or DEFAULT_PATH, wait=wait)


def find_run(store: "DuckStore", name: str | None, error: type[SparError] = StoreError) -> "RunInfo":
    """The run with this name or id, by default the loop that was started last. Raises `error`."""
    if info := store.run(name):
        return info
    raise error(
        f"{store.db.path} has no run {name or 'at all'}; start one with: spar run CONFIG, or list them with: "
        "spar sql 'SELECT run_id, name FROM runs'"
    )


def say(text: str) -> None:
    """Print to stderr: stdout is for data."""
    print(text, file=sys.stderr)


def print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def login() -> str:
    """Who decides, as the store records it."""
    return os.environ.get("USER", f"uid {os.getuid()}")
