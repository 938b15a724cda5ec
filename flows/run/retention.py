"""Which checkpoints keep their files: those a run needs, its best one, and the newest (`keep.checkpoints`)."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from sparring.flows.config import Config
from sparring.flows.supervise.run_lock import lock_run
from sparring.loop.types import Checkpoint, Removal
from sparring.store import history
from sparring.store.db import rows
from sparring.store.store import DuckStore


def prune(store: DuckStore, run: str, config: Config) -> int:
    """Remove the files of checkpoints that are not kept; rows and hashes stay. Returns how many were removed."""
    keep = config.keep.checkpoints
    return 0 if keep is None else len(_remove(store, run, removable(store, run, keep), f"keep.checkpoints = {keep}"))


def prune_by_hand(store: DuckStore, run: str, keep: int) -> list[Path]:
    """Like `prune` for a run that is not being played, with any `keep`. Returns the folders. Raises StoreBusy."""
    folder = store.db.path.parent / "runs" / run
    if not folder.is_dir():
        return []
    lock = lock_run(folder)
    try:
        return _remove(store, run, removable(store, run, keep), f"spar store prune --keep {keep}")
    finally:
        lock.release()


def removable(store: DuckStore, run: str, keep: int) -> list[Checkpoint]:
    """Checkpoints whose files a run does not need, and that no other run names, which may have started from them."""
    folder = store.db.path.parent / "runs" / run
    with store.db.read() as con:
        paths = rows(con, "SELECT DISTINCT path FROM checkpoints WHERE run_id <> ?", [run])
    elsewhere = {row["path"] for row in paths}
    gone = history.unneeded(store.db, run, keep)
    return [k for k in gone if Path(k.path).parent == folder and k.path not in elsewhere]


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _remove(store: DuckStore, run: str, gone: Sequence[Checkpoint], why: str) -> list[Path]:
    """Remove files after the store records it, so that files left by a kill are removed the next time."""
    store.add([[Removal(k.id, run, why) for k in gone]])
    present = [Path(k.path) for k in gone if Path(k.path).is_dir()]
    for path in present:
        shutil.rmtree(path)
    return present
