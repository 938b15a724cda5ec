"""Files that are written completely or not at all: to a temporary name, which is then renamed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

import duckdb
import pyarrow as pa
from pyarrow import parquet

from sparring.loop.errors import ConfigError

SUFFIXES = (".parquet", ".jsonl", "")  # "": a folder
SHARD = 200_000  # rows of a file in a folder
CARD = "README.md"
MARK = "made-with-sparring"  # a tag in the card: a folder with it may be overwritten


class Sink(Protocol):
    """As pyarrow's ParquetWriter."""

    def write_table(self, rows: pa.Table) -> None: ...
    def close(self) -> None: ...


def _parquet(path: Path, schema: pa.Schema) -> Sink:
    writer: Sink = parquet.ParquetWriter(path, schema, compression="zstd")
    return writer


class _Lines:
    """JSON lines, which DuckDB writes from columns."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("wb")
        self._con = duckdb.connect()

    def write_table(self, rows: pa.Table) -> None:
        self._con.register("batch", rows)
        lines = self._con.sql("SELECT to_json(t)::VARCHAR AS line FROM batch t").to_arrow_table()["line"].to_pylist()
        self._file.writelines(f"{line}\n".encode() for line in lines)

    def close(self) -> None:
        self._con.close()
        self._file.close()


class Shards:
    """Parquet files of `size` rows, `data/SPLIT-00000-of-00002.parquet`, as the hub names them."""

    def __init__(self, folder: Path, split: str, schema: pa.Schema, size: int = SHARD) -> None:
        self._data, self._split, self._schema, self._size = folder / "data", split, schema, size
        self._data.mkdir(parents=True)
        self._files: list[Path] = []
        self._open: Sink | None = None
        self._rows = 0

    def write_table(self, rows: pa.Table) -> None:
        while rows.num_rows:
            if self._open is None or self._rows == self._size:
                self._next()
            assert self._open is not None
            part = rows.slice(0, self._size - self._rows)
            self._open.write_table(part)
            self._rows += part.num_rows
            rows = rows.slice(part.num_rows)

    def _next(self) -> None:
        if self._open is not None:
            self._open.close()
        self._files.append(self._data / f"{len(self._files)}.parquet")
        self._open, self._rows = _parquet(self._files[-1], self._schema), 0

    def close(self) -> None:
        if self._open is None:
            self._next()  # a dataset without rows still has its columns
        assert self._open is not None
        self._open.close()
        for i, file in enumerate(self._files):
            file.rename(self._data / f"{self._split}-{i:05d}-of-{len(self._files):05d}.parquet")


def check_target(path: Path) -> None:
    """Raises ConfigError for a path that cannot be written to, or that has something other than an export."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"cannot write a {path.suffix} file; name it .parquet or .jsonl, or give a folder")
    if path.is_dir() and (path.suffix or not _replaceable(path)):
        raise ConfigError(f"{path} is a folder with other content; give a new folder, or a .parquet or .jsonl file")
    if path.is_file() and not path.suffix:
        raise ConfigError(f"{path} is a file; give a folder, or a .parquet or .jsonl file")


def _replaceable(folder: Path) -> bool:
    """Whether the folder is empty, or has an export and nothing else."""
    names = {path.name for path in folder.iterdir()}
    if names != {CARD, "data"}:
        return not names
    files = (folder / "data").iterdir()
    return MARK in (folder / CARD).read_text(encoding="utf-8") and all(file.suffix == ".parquet" for file in files)


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A temporary path to write to. It is renamed to `path` at the end of the block, unless the block raises."""
    partial = path.with_name(f"{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(partial)  # left by an export that was killed
    try:
        yield partial
        if path.is_dir():
            shutil.rmtree(path)
        partial.replace(path)
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sink(path: Path, suffix: str, split: str, schema: pa.Schema) -> Sink:
    """The sink for rows: a Parquet file, JSON lines, or a folder of shards."""
    if suffix == ".parquet":
        return _parquet(path, schema)
    return _Lines(path) if suffix == ".jsonl" else Shards(path, split, schema)
