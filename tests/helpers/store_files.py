"""Everything in a store: the rows of its tables, and the readable text in the files of its folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb

from sparring.store.catalog import tables
from sparring.store.db import Database

Rows = dict[str, list[tuple[Any, ...]]]


def rows_of(path: Path) -> Rows:
    with Database(path).read() as con:
        return {name: sorted(con.execute(f"FROM {name}").fetchall(), key=repr) for name in tables(con)}


def everything_in(folder: Path) -> Iterator[tuple[str, str]]:
    """Each file's name with its bytes as text, and with everything that a reader of its format sees."""
    for path in (p for p in folder.rglob("*") if p.is_file()):
        yield path.name, path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            yield path.name, repr(duckdb.execute(f"FROM '{path}'").fetchall())
        elif path.suffix == ".duckdb":
            with duckdb.connect(str(path), read_only=True) as con:
                yield path.name, "".join(repr(con.execute(f"FROM {name}").fetchall()) for name in tables(con))


def files_with(folder: Path, words: tuple[str, ...]) -> set[str]:
    """The names of the files that contain one of `words`."""
    return {name for name, text in everything_in(folder) if any(word in text for word in words)}
