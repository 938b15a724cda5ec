"""Which checkpoints keep their files: those a run needs, its best one, and the newest (`keep.checkpoints`)."""

import shutil
from pathlib import Path

from flows.config import Config
from loop.types import Removal
from store import history
from store.store import DuckStore


def prune(store: DuckStore, run: str, config: Config) -> int:
    """Remove the files of checkpoints that are not kept; their rows and hashes stay. Returns how many it removed now.

    The store hears of it first: what a kill leaves on disk is removed the next time.
    """
    keep = config.keep.checkpoints
    if keep is None:
        return 0
    folder = store.db.path.parent / "runs" / run
    gone = [k for k in history.unneeded(store.db, run, keep) if Path(k.path).parent == folder]  # never another's files
    store.add([[Removal(k.id, run, f"keep.checkpoints = {keep}") for k in gone]])
    present = [Path(k.path) for k in gone if Path(k.path).is_dir()]
    for path in present:
        shutil.rmtree(path)
    return len(present)
