"""The number of threads of a run. Sums are split among threads, so another number rounds otherwise."""

import os
from collections.abc import Callable
from dataclasses import replace

from sparring.flows.supervise.environment import say
from sparring.loop.types import RunInfo
from sparring.store.store import DuckStore

THREADS = "threads"  # among the versions of a run


def keep_threads(info: RunInfo, store: DuckStore, tell: Callable[[str], None] = say) -> RunInfo:
    """Compute with the number of threads that the run began with; returns the run with that number on record.

    A new run takes what it is given: OMP_NUM_THREADS, or one thread per core. A run that began before the number was
    kept has none. Processes that are started from now on inherit the number.
    """
    import torch

    known = store.run(info.id) if store.db.path.exists() else None
    began = known.versions.get(THREADS) if known else str(torch.get_num_threads())
    if began is not None:
        _set(int(began), tell)
    return replace(info, versions={**info.versions, **({THREADS: began} if began else {})})


def _set(number: int, tell: Callable[[str], None]) -> None:
    import torch

    given = torch.get_num_threads()
    if given != number:
        torch.set_num_threads(number)  # does nothing once vLLM computes in this process
        done = torch.get_num_threads() == number
        how = (
            f"it resumes with {number}" if done else "numbers are rounded otherwise; resume it in a process of its own"
        )
        tell(f"the run began with {number} threads and was given {given} (OMP_NUM_THREADS, or the cores): {how}")
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())
