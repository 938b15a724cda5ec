"""Checks of the store, the folder of its runs, their disk, and the locks."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import psutil

from sparring.flows.supervise.device_lock import locks_folder
from sparring.flows.supervise.processes import describe, is_stopped, openers
from sparring.loop.errors import SparError
from sparring.loop.formatting import size
from sparring.store.db import Database, rows
from sparring.store.maintenance.finding import Finding

SPARE = 5 * 2**30  # bytes
STATES = 7  # checkpoint sizes: the new weights, and two saved states of weights and two moments each


def examine(store: Path) -> list[Finding]:
    store = store.expanduser().resolve()
    runs = store.parent / "runs"
    locks = [store.with_name(store.name + ".lock"), *runs.glob("*/run.lock"), *locks_folder().glob("*.lock")]
    held = openers(path for path in locks if path.exists())
    checked, checkpoint = _store(store)
    return [checked, disk(store, checkpoint), _locks(held), *_stopped(held), partial(runs, held)]


def _store(store: Path) -> tuple[Finding, int]:
    """Whether the store can be read, and the bytes of its largest checkpoint."""
    if not store.exists():
        return Finding("store", True, f"none at {store} yet; choose another with --store PATH"), 0
    try:
        with Database(store, wait=2).read() as con:
            counted = rows(con, "SELECT count(*) AS n FROM runs")[0]["n"]
            paths = [Path(row["path"]) for row in rows(con, "SELECT path FROM checkpoints")]
    except SparError as error:
        remedy = "if it is busy, wait for the process that holds it (see locks), then try again"
        return Finding("store", False, str(error), remedy), 0
    sizes = (sum(file.stat().st_size for file in path.glob("*.safetensors")) for path in paths)
    return Finding("store", True, f"{store}: {counted} runs, {size(store.stat().st_size)}"), max(sizes, default=0)


def disk(store: Path, checkpoint: int) -> Finding:
    """Whether the disk has room for the next update, estimated from the largest known checkpoint."""
    folder = next(parent for parent in store.parents if parent.exists())
    free, need = shutil.disk_usage(folder).free, max(SPARE, STATES * checkpoint)
    text = f"{size(free)} free at {folder}"
    if checkpoint:
        text += f"; an update takes up to {size(STATES * checkpoint)}, {size(checkpoint)} of that permanently"
    remedy = f"make room for {size(need)}, or keep fewer checkpoints: keep.checkpoints"
    return Finding("disk", free > need, text, remedy)


def _locks(held: dict[Path, psutil.Process]) -> Finding:
    """The locks and their holders. A lock ends with its process, so none is ever stale; a leftover file is no lock."""
    holders = [f"{_name(path)} held by {describe(process)}" for path, process in sorted(held.items())]
    return Finding("locks", True, "; ".join(holders) or "none held")


def _stopped(held: dict[Path, psutil.Process]) -> list[Finding]:
    """Stopped processes (Ctrl-Z) that hold a lock, and so keep others waiting."""
    stopped = {process.pid: path for path, process in held.items() if is_stopped(process)}
    return [
        Finding("stopped", False, f"pid {pid} holds {_name(path)} and is stopped", f"kill -CONT {pid}, or kill {pid}")
        for pid, path in stopped.items()
    ]


def partial(runs: Path, held: Iterable[Path]) -> Finding:
    """Unfinished files of runs that died. Those of a live run are left out."""
    playing = {path.parent for path in held}
    left = [path for path in sorted(runs.glob("*/**/*.partial")) if not playing & {*path.parents}]
    if not left:
        return Finding("partial files", True, "none")
    total = sum(f.stat().st_size for path in left for f in (path, *path.rglob("*")) if f.is_file())
    text = f"{len(left)} left by a run that died, {size(total)}: {', '.join(map(str, left))}"
    return Finding("partial files", False, text, "resume the run (spar resume), or remove them: rm -r")


def _name(lock: Path) -> str:
    if lock.name == "run.lock":
        return f"run {lock.parent.name}"
    return f"accelerator {lock.stem}" if lock.parent == locks_folder() else f"store {lock.stem}"
