"""The preference store: one DuckDB file that remembers everything a loop did.

In a notebook: `import sparring; s = sparring.open_store("preferences.duckdb"); s.sql("FROM round_summary").polars()`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparring.store.reader import Reader


DEFAULT_PATH = "preferences.duckdb"


def open(path: str | Path, *, wait: float = 60.0, seconds: float | None = 30.0) -> "Reader":
    """The store at `path`, to ask in SQL; read-only, and closed between questions.

    wait: seconds to wait for whoever has the store, before StoreBusy. seconds: that one question may take; None for
    as long as it takes, which is right for a read copy only, since a run waits for whoever asks its store.
    """
    from sparring.store.reader import Reader  # DuckDB and Arrow load when a store is opened, not when this is imported

    return Reader(path, wait=wait, seconds=seconds)
