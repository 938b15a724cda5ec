"""The read copy of a store: for tools that keep a file open, such as a database browser or a notebook.

It is a whole file under another name, put in place of the last one at once: who has the last one open keeps reading it.
"""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

from sparring.loop.errors import StoreError
from sparring.store.db import Database


def read_copy(path: Path) -> Path:
    """The name of the read copy of the store at `path`."""
    return path.with_name(f"{path.stem}.read{path.suffix}")


def publish(db: Database) -> Path:
    """Bring the read copy up to date, unless it is. Raises StoreBusy, and StoreError when the disk is full."""
    copy = read_copy(db.path)
    with db.at_rest():
        now = os.stat(db.path)
        if copy.exists() and (copy.stat().st_mtime_ns, copy.stat().st_size) == (now.st_mtime_ns, now.st_size):
            return copy
        _copy(db.path, copy)
    return copy


def _copy(path: Path, copy: Path) -> None:
    partial = copy.with_name(f"{copy.name}.partial")
    # Another process copies: were this one to open and close the file, DuckDB's locks on it would be gone.
    done = subprocess.run(["cp", "-p", str(path), str(partial)], capture_output=True, text=True, check=False)
    if done.returncode:
        with suppress(OSError):  # the first error is the one to tell
            partial.unlink(missing_ok=True)
        raise StoreError(
            f"the read copy {copy} could not be written ({done.stderr.strip()}); check free space with: df -h "
            f"{copy.parent}, or do without it: keep.read_copy: false. The store itself is safe"
        )
    copy.with_name(f"{copy.name}.wal").unlink(missing_ok=True)  # left by someone who wrote into the last copy
    partial.replace(copy)
