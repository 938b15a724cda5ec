"""Rows of files, folders and hub datasets, with their numbers, in batches, so that memory holds few of them."""

import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv, parquet

from sparring.loop.errors import DataError

BATCH = 2000  # rows in memory at once
LINES = csv.ParseOptions(newlines_in_values=True)
SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet", ".csv", ".csv.gz")
Row = tuple[int, Any]  # its number, from 1 (in JSONL the line's), and its value


@dataclass(frozen=True)
class Source:
    """A file, folder or dataset to read. `sha256` is the hash of its bytes."""

    path: str
    sha256: str
    files: tuple[Path, ...] = ()
    dataset: Any = None

    def batches(self) -> Iterator[list[Row]]:
        """The rows in batches. Raises DataError with the line for a row that cannot be read."""
        in_lines = _suffix(self.files or (Path(),)).startswith(".jsonl")
        rows = _lines(self.files[0]) if in_lines else enumerate(self._records(), start=1)
        while batch := list(islice(rows, BATCH)):
            yield batch

    def _records(self) -> Iterator[Any]:
        for batch in self._arrow():
            yield from batch.to_pylist()

    def _arrow(self) -> Iterator[pa.RecordBatch]:
        if self.dataset is not None:
            yield from self.dataset.with_format("arrow").iter(BATCH)
            return
        try:
            for file in self.files:
                if file.suffix == ".parquet":
                    with parquet.ParquetFile(file) as table:
                        yield from table.iter_batches(BATCH)
                else:  # all cells are text, and an empty cell is null
                    texts = {name: pa.string() for name in csv.open_csv(file, parse_options=LINES).schema.names}
                    cells = csv.ConvertOptions(column_types=texts, null_values=[""], strings_can_be_null=True)
                    yield from csv.open_csv(file, parse_options=LINES, convert_options=cells)
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise DataError(f"{self.path} cannot be read as {_suffix(self.files)[1:]}: {error}") from error


def open_source(path: str) -> Source:
    """The source at `path`. Raises DataError for anything but the following.

    A .jsonl, .csv (each also .gz) or .parquet file; a folder of Parquet shards, as `spar export` and the hub write; a
    folder that `datasets` saved; or a dataset of the hub, `org/name` or `org/name:split`.
    """
    place = Path(path).expanduser()
    files = (place,) if place.is_file() else _shards(place)
    if not files:
        return _dataset(path, place)
    if _suffix(files) not in SUFFIXES:
        raise DataError(f"{path} is not one of {', '.join(SUFFIXES)}; convert it, or give a dataset's folder or hub id")
    return Source(path, _digest(files), files)


def _shards(folder: Path) -> tuple[Path, ...]:
    """The Parquet files of a folder in the hub's layout, in the order of their names."""
    return tuple(sorted([*folder.glob("*.parquet"), *folder.glob("data/*.parquet")]))


def _suffix(files: Sequence[Path]) -> str:
    first = files[0]
    return "".join(first.suffixes[-2:]) if first.suffix == ".gz" else first.suffix


def _digest(files: Sequence[Path]) -> str:
    digests = []
    for path in files:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _dataset(path: str, place: Path) -> Source:
    import datasets

    name, _, split = path.partition(":")
    saved = place.is_dir()
    try:
        dataset = datasets.load_from_disk(str(place)) if saved else datasets.load_dataset(name, split=split or "train")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path!r} is neither a file ({', '.join(SUFFIXES)}) or a dataset's folder here, nor a dataset of the hub "
            f"that can be loaded: {error}"
        ) from error
    if isinstance(dataset, datasets.DatasetDict):
        raise DataError(f"{path} holds the splits {', '.join(dataset)}; give one, e.g. {place / next(iter(dataset))}")
    files = [Path(each["filename"]) for each in dataset.cache_files]
    return Source(path, _digest(files), dataset=dataset)


def _lines(path: Path) -> Iterator[Row]:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path} line {number} is not JSON ({error}); expected one object per line") from error
        except (UnicodeDecodeError, gzip.BadGzipFile) as error:
            raise DataError(f"{path} cannot be read ({error}); save it as UTF-8") from error
