"""One process at a time per run: a kernel lock, which is released when the process dies."""

from pathlib import Path

from filelock import FileLock, Timeout

from sparring.loop.errors import StoreBusy


def lock_run(run_folder: Path) -> FileLock:
    """Lock a run, so that no other process plays it, until release or the end of this process. Raises StoreBusy."""
    run_folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(run_folder / "run.lock"))
    try:
        lock.acquire(timeout=1)  # `is_locked` holds it for a moment
    except Timeout as error:
        raise StoreBusy(
            f"another process is playing {run_folder.name} (it holds {lock.lock_file}); wait for it, see: spar "
            "status, or stop it and resume with: spar resume"
        ) from error
    return lock


def is_locked(run_folder: Path) -> bool:
    """Whether a process is playing the run."""
    if not (run_folder / "run.lock").exists():
        return False
    try:
        lock_run(run_folder).release()
    except StoreBusy:
        return True
    return False
