"""Query results as a table, CSV, JSON, JSON lines, Parquet or Arrow, one batch at a time."""

import json
import sys
from collections.abc import Iterable
from itertools import islice
from typing import IO, TYPE_CHECKING, Any

from sparring.cli.common import AnyFormat, say
from sparring.cli.tables import as_table, plain, print_table

if TYPE_CHECKING:
    import pyarrow as pa

DRAWN = 1_000  # rows; a table needs all of them at once to set the widths of its columns


def write_text(batches: "pa.RecordBatchReader", format: AnyFormat, out: IO[str]) -> None:
    """Write rows as text. Columns with the same name are numbered, see store.reader.distinct."""
    if format == "csv":
        _csv(batches, out)
    elif format == "json":
        _json(_dicts(batches), out)
    elif format == "jsonl":
        out.writelines(json.dumps(row, ensure_ascii=False, default=plain) + "\n" for row in _dicts(batches))
    else:
        _table(batches, out)


def write_binary(batches: "pa.RecordBatchReader", format: AnyFormat, out: IO[bytes]) -> None:
    """Write rows as a Parquet file or an Arrow IPC stream, with their own types."""
    import pyarrow as pa
    from pyarrow import parquet

    from sparring.store.reader import distinct

    schema = pa.schema([f.with_name(n) for f, n in zip(batches.schema, distinct(batches.schema.names), strict=True)])
    make = parquet.ParquetWriter if format == "parquet" else pa.ipc.new_stream
    with make(out, schema) as writer:
        for batch in batches:
            writer.write_batch(batch.rename_columns(schema.names))


def _dicts(batches: "pa.RecordBatchReader") -> Iterable[dict[str, Any]]:
    from sparring.store.reader import distinct

    names = distinct(batches.schema.names)
    return (row for batch in batches for row in batch.rename_columns(names).to_pylist())


def _json(rows: Iterable[dict[str, Any]], out: IO[str]) -> None:
    between = "[\n"
    for row in rows:
        out.write(between + json.dumps(row, ensure_ascii=False, default=plain))  # indenting takes three times as long
        between = ",\n"
    out.write("[]\n" if between == "[\n" else "\n]\n")


def _csv(batches: "pa.RecordBatchReader", out: IO[str]) -> None:
    import pyarrow as pa
    from pyarrow import csv

    from sparring.store.reader import distinct

    names, options = distinct(batches.schema.names), csv.WriteOptions(include_header=False, quoting_style="needed")
    out.write(",".join(map(_quoted, names)) + "\n")
    for batch in batches:
        buffer = pa.BufferOutputStream()
        csv.write_csv(pa.table([_flat(column) for column in batch.columns], names=names), buffer, options)
        out.write(buffer.getvalue().to_pybytes().decode())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if set(name) & set('",\r\n') else name


def _flat(column: "pa.Array") -> "pa.Array":
    """A column that CSV can hold: lists and structs as JSON."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        return column.dictionary_decode()
    if pa.types.is_nested(column.type):
        texts = [None if v is None else json.dumps(v, ensure_ascii=False, default=plain) for v in column.to_pylist()]
        return pa.array(texts, pa.string())
    if pa.types.is_interval(column.type):
        return pa.array([None if v is None else str(v) for v in column.to_pylist()], pa.string())
    return column


def _table(batches: "pa.RecordBatchReader", out: IO[str]) -> None:
    from sparring.store.reader import distinct

    rows = iter(_dicts(batches))
    table = as_table(islice(rows, DRAWN), distinct(batches.schema.names))
    print_table(table, out, paged=out is sys.stdout)
    if more := sum(1 for _ in rows):
        say(f"these are the first {DRAWN} of {DRAWN + more} rows; for all of them: --format csv, or --to FILE")
