"""A store whose file stays open: to open it takes DuckDB 20 ms, and two rounds of a tiny model do so 80 times."""

from contextlib import AbstractContextManager
from pathlib import Path

import duckdb

from store.db import Database
from store.store import DuckStore


class _Kept(Database):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.kept = super()._open(read_only=False)

    def _open(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        return self.kept.cursor()

    def read(self, *, sealed: bool = False) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        return super().read()  # a seal is of the whole file while it is open, and cannot be taken off again


class KeptStore(DuckStore):
    """For one process alone, until `close`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.db = self._kept = _Kept(path)

    def close(self) -> None:
        self._kept.kept.close()
