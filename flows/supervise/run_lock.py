"""One process plays a run at a time: a lock of the kernel's, which dies with the process."""

from pathlib import Path

from filelock import FileLock, Timeout

from sparring.loop.errors import StoreBusy


def lock_run(run_folder: Path) -> FileLock:
    """Keep others from playing the same run; the kernel lets go when this process dies. Raises StoreBusy."""
    run_folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(run_folder / "run.lock"))
    try:
        lock.acquire(timeout=1)  # `is_locked` takes it for a moment
    except Timeout as error:
        raise StoreBusy(
            f"another process is playing {run_folder.name} (it holds {lock.lock_file}); wait for it, see: spar "
            "status, or stop it and go on with: spar resume"
        ) from error
    return lock


def is_locked(run_folder: Path) -> bool:
    """Whether a process plays the run now."""
    if not (run_folder / "run.lock").exists():
        return False
    try:
        lock_run(run_folder).release()
    except StoreBusy:
        return True
    return False
