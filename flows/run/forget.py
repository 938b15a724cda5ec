"""Forget prompts everywhere: in the store, and in the files of the runs that used them."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sparring.flows.supervise.run_lock import lock_run
from sparring.store.maintenance.copies import remove_durably
from sparring.store.maintenance.forget import Plan, forget
from sparring.store.store import DuckStore

# Files that quote answers (reports, errors, an engine's log) or are unfinished training state. Checkpoints stay.
QUOTING = ("report.html", "error.txt", "engine.log", "update_*", "training")


@dataclass(frozen=True)
class Forgotten:
    plan: Plan
    files: tuple[str, ...]  # removed files and folders


def files_of(store: DuckStore, run_ids: Sequence[str]) -> list[Path]:
    """Files of runs that may quote a prompt or its answers."""
    folders = [store.db.path.parent / "runs" / run for run in run_ids]
    return [path for folder in folders for pattern in QUOTING for path in sorted(folder.glob(pattern))]


def forget_everywhere(store: DuckStore, plan: Plan, reason: str, by: str) -> Forgotten:
    """Forget the prompts of a plan. Raises StoreBusy while one of the runs is being played."""
    with ExitStack() as held:
        for run in plan.run_ids:
            folder = store.db.path.parent / "runs" / run
            if folder.is_dir():
                held.callback(lock_run(folder).release)
        removed = remove_durably(files_of(store, plan.run_ids))
        done = forget(store.db, [*plan.prompt_ids, *plan.again], reason, by)
    return Forgotten(done, tuple(map(str, removed)))
