"""What the commands share."""

import sys
from typing import Annotated, Literal

import typer

STORE = "preferences.duckdb"
Store = Annotated[str | None, typer.Option(envvar="SPARRING_STORE", help=f"The DuckDB file; {STORE} when not given.")]
Format = Literal["table", "csv", "json", "jsonl"]


def say(text: str) -> None:
    """To stderr: stdout is for data."""
    print(text, file=sys.stderr)
