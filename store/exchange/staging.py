"""A scratch database between a file and the store, for the steps that need all rows at once: on disk, in columns."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa

from sparring.loop.types import Split, make_id
from sparring.store.exchange.shapes import Given, Refused, Shape
from sparring.store.exchange.sources import Source

TABLES = """
CREATE SEQUENCE places;
CREATE TABLE given (
    n BIGINT DEFAULT nextval('places'), file INTEGER, shape VARCHAR, number BIGINT, prompt_id VARCHAR, messages VARCHAR,
    texts VARCHAR[], completion_ids VARCHAR[], scores DOUBLE[], p DOUBLE, margin DOUBLE, weight DOUBLE,
    label BOOLEAN, fields VARCHAR);
CREATE TABLE refused (file INTEGER, number BIGINT, why VARCHAR, row VARCHAR);
"""
HALF = "has half of a surrogate pair, which is no character"
SAME = ("texts", "scores", "p", "margin", "weight", "label")  # columns that are fields of Given


@contextmanager
def scratch() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of its own in a temporary folder, with the tables `given` and `refused`."""
    with TemporaryDirectory(prefix="sparring-import-") as folder:
        con = duckdb.connect(str(Path(folder) / "scratch.duckdb"), config={"memory_limit": "1GiB"})
        try:
            con.execute(TABLES)
            yield con
        finally:
            con.close()


def stage(con: duckdb.DuckDBPyConnection, file: int, source: Source, shape: Shape, run: str, split: Split) -> None:
    """Add every row of a source to the table `given`, or to `refused` with what is wrong with it."""
    for batch in source.batches():
        taken: list[dict[str, Any]] = []
        left: list[dict[str, Any]] = []
        for number, row in batch:
            try:
                columns = _columns(shape.read(row), run, split)
                taken.append({"file": file, "shape": shape.name, "number": number, **columns})
            except (Refused, UnicodeEncodeError) as error:
                why = str(error) if isinstance(error, Refused) else HALF
                left.append({"file": file, "number": number, "why": why, "row": json.dumps(row, default=str)})
        _insert(con, "given", taken)
        _insert(con, "refused", left)


def _insert(con: duckdb.DuckDBPyConnection, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        columns = ", ".join(rows[0])
        schema = con.sql(f"SELECT {columns} FROM {name} LIMIT 0").to_arrow_table().schema
        con.register("incoming", pa.Table.from_pylist(rows, schema))
        con.execute(f"INSERT INTO {name} BY NAME FROM incoming")
        con.unregister("incoming")


def _columns(item: Given, run: str, split: Split) -> dict[str, Any]:
    # As Prompt.make does: the same prompt has one id, wherever it comes from.
    prompt = make_id("prompt", messages=item.messages, split=split, meta={})
    seen: dict[str, int] = {}
    ids = []
    for text in item.texts:  # two answers with the same text stay two answers
        copy = seen[text] = seen.get(text, -1) + 1
        ids.append(make_id("completion", run=run, prompt=prompt, text=text, copy=copy))
    in_json = {"messages": _json(item.messages), "fields": _json(item.fields)}
    in_json["fields"].encode()  # raises UnicodeEncodeError, as the ids do for messages and texts
    return {"prompt_id": prompt, "completion_ids": ids, **{name: getattr(item, name) for name in SAME}, **in_json}


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str, allow_nan=False)
    except ValueError:  # JSON has no NaN, which pandas writes to Parquet for a missing value
        return json.dumps(_without_nan(value), ensure_ascii=False, sort_keys=True, default=str)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))) else value
