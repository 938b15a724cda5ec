"""Import of rows from files, with source and licence. Importing a file again adds nothing."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from sparring.loop.errors import ConfigError, DataError
from sparring.loop.types import JudgeInfo, Origin, RunInfo, Split, digest, make_id
from sparring.store.db import rows
from sparring.store.engine import quoted
from sparring.store.exchange.making import COUNTS, chunks
from sparring.store.exchange.overlap import refuse_overlap
from sparring.store.exchange.shapes import Shape, shape_of
from sparring.store.exchange.sources import Source, open_source
from sparring.store.exchange.staging import scratch, stage
from sparring.store.store import DuckStore

KIND: Final = "import"
SHOWN = 5  # refused rows that an error names

Read = tuple[Source, Shape]


@dataclass(frozen=True)
class Imported:
    """What an import has, and in `added` how many rows of the store were new: none if it was imported before."""

    run_id: str
    judge: str
    rows: int
    refused: int
    prompts: int
    completions: int
    pairs: int
    ties: int
    identical: int
    labels: int
    added: int


@dataclass(frozen=True)
class Asked:
    """What to import. `columns`: the names of columns in the files. `refused`: the file for rows that are not taken."""

    paths: tuple[str, ...]
    source: str
    licence: str
    run: str | None = None
    split: Split = "train"
    origin: Origin = "dataset"
    columns: Mapping[str, str] = field(default_factory=dict)
    refused: str | None = None


def import_rows(store: DuckStore, request: Asked) -> Imported:
    """Add prompts, answers, preferences, scores and labels of files as a run of kind `import`.

    A preference is a judgement by the judge `import:SOURCE`. It is also a pair, unless it is a tie or the answers are
    equal. Raises DataError if a row cannot be read (unless `refused` names a file for such rows), or if a prompt is in
    the store under the other split; ConfigError for options; StoreError, StoreBusy.
    """
    _check(request)
    sources = [open_source(path) for path in request.paths]
    if len({s.sha256 for s in sources}) < len(sources):
        raise ConfigError(f"two of {', '.join(request.paths)} have the same content; give it once")
    read = [(source, _shape(source, request.columns)) for source in sources]
    info = _run(request, read)
    _refuse_other(store, info)
    with scratch() as con:
        for file, (source, shape) in enumerate(read):
            stage(con, file, source, shape, info.id, request.split)
        _leave_out(con, request)
        refuse_overlap(store, con, request.paths, request.split)
        return _add(store, con, request, info, _files(con, request, info, read))


def _check(request: Asked) -> None:
    if not request.source.strip() or not request.licence.strip():
        raise ConfigError(
            f"the source is {request.source!r} and the licence {request.licence!r}; give both: --source NAME "
            "--licence TEXT (the licence may be 'unknown')"
        )
    if request.run is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", request.run):
        raise ConfigError(f"--run is {request.run!r}; expected letters, digits, dots, dashes and underscores")


def _shape(source: Source, columns: Mapping[str, str]) -> Shape:
    """The shape that the columns of the first rows tell."""
    batch = next(source.batches(), [])
    if not batch:
        raise DataError(f"{source.path} has no rows; expected at least one")
    keys = {key: None for _, row in batch if isinstance(row, Mapping) for key in row}
    return shape_of(list(keys), columns, source.path)


def _run(request: Asked, read: Sequence[Read]) -> RunInfo:
    """The run, named by its content: the same files, read in the same way, are the same run."""
    config: dict[str, Any] = {
        "kind": KIND,
        "rounds": 0,
        "source": request.source,
        "licence": request.licence,
        "split": request.split,
        "origin": request.origin,
        "files": [{"sha256": file.sha256, "shape": shape.name, "columns": dict(shape.columns)} for file, shape in read],
    }
    name = request.run or re.sub(r"[^A-Za-z0-9._-]+", "-", request.source).strip("-._").lower() or KIND
    sha256 = digest(config, 32)
    versions = {package: version(package) for package in ("sparring", "duckdb", "pyarrow", "datasets")}
    return RunInfo(f"{name}-{sha256[:8]}", name, 0, config, sha256, versions, KIND)


def _refuse_other(store: DuckStore, info: RunInfo) -> None:
    run = store.run(info.name) if store.db.path.exists() else None
    if run is not None and run.id != info.id:
        raise ConfigError(
            f"{store.db.path} has a run {info.name!r} already ({run.id}), of another kind or of other files, licence "
            f"or columns; give this one a name of its own: --run {info.name}-2"
        )


def _leave_out(con: duckdb.DuckDBPyConnection, request: Asked) -> None:
    """Write refused rows to the file that was named for them. Raises DataError if none was, or if no row is left."""
    (counted,) = rows(con, "SELECT count(*) AS refused, (SELECT count(*) FROM given) AS taken FROM refused")
    n = counted["refused"]
    if not n:
        return
    first = rows(con, "SELECT file, number, why FROM refused ORDER BY file, number LIMIT $n", {"n": SHOWN})
    named = "; ".join(f"{request.paths[row['file']]} row {row['number']} {row['why']}" for row in first)
    named += "; ..." if n > SHOWN else ""
    if not counted["taken"]:
        raise DataError(f"none of the {n} rows can be read: {named}")
    if request.refused is None:
        raise DataError(
            f"{n} rows cannot be read, and nothing was imported: {named}. Correct them, or import the others with "
            "--refused FILE, which gets these rows"
        )
    _write_refused(con, request.paths, Path(request.refused).resolve())


def _write_refused(con: duckdb.DuckDBPyConnection, paths: Sequence[str], to: Path) -> None:
    """Write refused rows as JSON lines: path, number, why, and the row as text."""
    con.register("named", pa.table({"file": pa.array(range(len(paths)), pa.int32()), "path": list(paths)}))
    partial = to.with_name(f"{to.name}.partial")
    sql = "SELECT path, number, why, row FROM refused JOIN named USING (file) ORDER BY file, number"
    con.execute(f"COPY ({sql}) TO {quoted(partial)} (FORMAT json)")
    partial.replace(to)


def _add(store: DuckStore, con: duckdb.DuckDBPyConnection, request: Asked, info: RunInfo, files: pa.Table) -> Imported:
    """Add the run and its files first, so that no row refers to a missing one, then all rows in chunks."""
    judge = f"{KIND}:{request.source}"
    added = store.add([[info, JudgeInfo(judge, KIND, {"source": request.source})]])
    added += store.ingest({"sources": files})
    shared = {"run": info.id, "source": request.source, "judge": judge, "split": request.split}
    shared |= {"origin": request.origin, "sources": files["source_id"].to_pylist()}
    added += sum(store.ingest(tables) for tables in chunks(con, shared))
    (counts,) = rows(con, COUNTS)
    return Imported(run_id=info.id, judge=judge, added=added, **counts)


def _files(con: duckdb.DuckDBPyConnection, request: Asked, info: RunInfo, read: Sequence[Read]) -> pa.Table:
    """The rows of `sources`."""
    sql = """SELECT (SELECT count(*) FROM given WHERE file = f) AS rows,
        (SELECT count(*) FROM refused WHERE file = f) AS refused FROM range($files) t(f) ORDER BY f"""
    counts = rows(con, sql, {"files": len(read)})
    shared = {"run_id": info.id, "source": request.source, "licence": request.licence, "split": request.split}
    files = [
        {
            "source_id": make_id("source", run=info.id, sha256=file.sha256),
            "path": file.path,
            "sha256": file.sha256,
            "shape": shape.name,
            "columns": json.dumps(shape.columns),
        }
        for file, shape in read
    ]
    return pa.Table.from_pylist([shared | file | count for file, count in zip(files, counts, strict=True)])
