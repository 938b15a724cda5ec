"""The check that the checkpoints that the store names are on disk, with the weights they had."""

from collections.abc import Callable
from pathlib import Path

from sparring.loop.errors import SparError
from sparring.store.db import Database
from sparring.store.maintenance.finding import Finding

# A policy's folder may be shared by several rows: it is hashed once.
NAMED = """
    SELECT k.path, k.weights_sha256, min(k.checkpoint_id) AS checkpoint_id FROM checkpoints k
    ANTI JOIN removals d USING (checkpoint_id) WHERE k.path <> '' GROUP BY ALL ORDER BY ALL
"""


def check_checkpoints(db: Database, weights_sha256: Callable[[Path], str]) -> list[Finding]:
    """The finding for all folders. `weights_sha256` returns the hash of a folder's weights, or raises SparError."""
    named = db.rows(NAMED)
    wrong = [f"{row['checkpoint_id']}: {why}" for row in named if (why := _wrong(row, weights_sha256))]
    message = "; ".join(wrong) or f"{len(named):,} folders"
    remedy = "put them back: runs cannot continue from them (spar store prune removes files and records it)"
    return [Finding("checkpoints are on disk as they were", not wrong, message, remedy if wrong else "")]


def _wrong(row: dict[str, str], weights_sha256: Callable[[Path], str]) -> str | None:
    path = Path(row["path"])
    if not path.is_dir():
        return f"{path} is gone"
    try:
        sha256 = weights_sha256(path)
    except (SparError, OSError) as error:
        return str(error)
    return None if sha256 == row["weights_sha256"] else f"{path} has other weights than it had"
