"""The preference store: one DuckDB file that records everything a loop did.

In a notebook: `import sparring; s = sparring.open_store("preferences.duckdb"); s.sql("FROM round_summary").polars()`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparring.store.reader import Reader


DEFAULT_PATH = "preferences.duckdb"


def open(path: str | Path, *, wait: float = 60.0, seconds: float | None = 30.0) -> "Reader":
    """The store at `path`, for SQL queries. It is read-only, and the file is closed between queries.

    wait: seconds to wait while another process has the store, before StoreBusy. seconds: time limit of one query. None
    is no limit and is meant for a read copy, because a run waits while its own store is queried.
    """
    from sparring.store.reader import Reader  # DuckDB and Arrow load when a store is opened, not when this is imported

    return Reader(path, wait=wait, seconds=seconds)
