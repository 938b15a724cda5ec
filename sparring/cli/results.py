"""Query results as a table, CSV, JSON, JSON lines, Parquet or Arrow, one batch at a time."""

import json
import sys
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import IO, Any

import pyarrow as pa
from pyarrow import csv, parquet

from sparring.cli.common import AnyFormat, say
from sparring.cli.tables import as_table, plain, print_table
from sparring.store.reader import distinct

DRAWN = 1_000  # rows; a table needs all of them at once to set the widths of its columns


def write(batches: pa.RecordBatchReader, format: AnyFormat, out: IO[Any]) -> None:
    """Write rows to a binary stream for Parquet and Arrow, else to a text stream.

    Columns with the same name are numbered, see store.reader.distinct.
    """
    writers: dict[str, Callable[[pa.RecordBatchReader, IO[Any]], None]] = {
        "csv": _csv, "json": _json, "jsonl": _json_lines, "table": _table,
        "parquet": partial(_binary, parquet.ParquetWriter), "arrow": partial(_binary, pa.ipc.new_stream),
    }  # fmt: skip
    writers[format](batches, out)


def _binary(make: Callable[..., Any], batches: pa.RecordBatchReader, out: IO[bytes]) -> None:
    """Columns keep their own types."""
    schema = pa.schema([f.with_name(n) for f, n in zip(batches.schema, distinct(batches.schema.names), strict=True)])
    with make(out, schema) as writer:
        for batch in batches:
            writer.write_batch(batch.rename_columns(schema.names))


def _dicts(batches: pa.RecordBatchReader) -> Iterable[dict[str, Any]]:
    names = distinct(batches.schema.names)
    return (row for batch in batches for row in batch.rename_columns(names).to_pylist())


def _json(batches: pa.RecordBatchReader, out: IO[str]) -> None:
    between = "[\n"
    for row in _dicts(batches):
        out.write(between + json.dumps(row, ensure_ascii=False, default=plain))  # indenting takes three times as long
        between = ",\n"
    out.write("[]\n" if between == "[\n" else "\n]\n")


def _json_lines(batches: pa.RecordBatchReader, out: IO[str]) -> None:
    out.writelines(json.dumps(row, ensure_ascii=False, default=plain) + "\n" for row in _dicts(batches))


def _csv(batches: pa.RecordBatchReader, out: IO[str]) -> None:
    names, options = distinct(batches.schema.names), csv.WriteOptions(include_header=False, quoting_style="needed")
    out.write(",".join(map(_quoted, names)) + "\n")
    for batch in batches:
        buffer = pa.BufferOutputStream()
        csv.write_csv(pa.table([_flat(column) for column in batch.columns], names=names), buffer, options)
        out.write(buffer.getvalue().to_pybytes().decode())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if set(name) & set('",\r\n') else name


def _flat(column: pa.Array) -> pa.Array:
    """A column that CSV can hold: lists and structs as JSON."""
    if pa.types.is_dictionary(column.type):
        return column.dictionary_decode()
    if pa.types.is_nested(column.type):
        texts = [None if v is None else json.dumps(v, ensure_ascii=False, default=plain) for v in column.to_pylist()]
        return pa.array(texts, pa.string())
    if pa.types.is_interval(column.type):
        return pa.array([None if v is None else str(v) for v in column.to_pylist()], pa.string())
    return column


def _table(batches: pa.RecordBatchReader, out: IO[str]) -> None:
    rows = iter(_dicts(batches))
    table = as_table(islice(rows, DRAWN), distinct(batches.schema.names))
    print_table(table, out, paged=out is sys.stdout)
    if more := sum(1 for _ in rows):
        say(f"these are the first {DRAWN} of {DRAWN + more} rows; for all of them: --format csv, or --to FILE")
