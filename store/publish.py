"""The read copy of a store, for tools that keep a file open, such as a database browser or a notebook.

A new copy replaces the last one at once. A tool that has the last one open keeps reading it.
"""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

from sparring.loop.errors import StoreError
from sparring.store.db import Database


def read_copy(path: Path) -> Path:
    """The path of the read copy of the store at `path`."""
    return path.with_name(f"{path.stem}.read{path.suffix}")


def publish(db: Database) -> Path:
    """Bring the read copy up to date. Raises StoreBusy, and StoreError if the disk is full."""
    copy = read_copy(db.path)
    with db.at_rest():
        now = os.stat(db.path)
        if copy.exists() and (copy.stat().st_mtime_ns, copy.stat().st_size) == (now.st_mtime_ns, now.st_size):
            return copy
        _copy(db.path, copy)
    return copy


def _copy(path: Path, copy: Path) -> None:
    partial = copy.with_name(f"{copy.name}.partial")
    # Another process copies: if this one opened and closed the file, DuckDB would lose its locks on it.
    done = subprocess.run(
        ["cp", "-p", str(path), str(partial)], capture_output=True, check=False, encoding="utf-8", errors="replace"
    )
    if done.returncode:
        with suppress(OSError):  # the first error is raised
            partial.unlink(missing_ok=True)
        raise StoreError(
            f"the read copy {copy} could not be written ({done.stderr.strip()}); check free space with: df -h "
            f"{copy.parent}, or turn the read copy off: keep.read_copy: false. The store itself is safe"
        )
    copy.with_name(f"{copy.name}.wal").unlink(missing_ok=True)  # left by a program that wrote to the last copy
    partial.replace(copy)
