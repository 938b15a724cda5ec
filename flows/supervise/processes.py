"""Finds and ends the processes that a run started, by a mark in the environment that every child inherits.

A child may be reparented, or lead its own session (as torchrun's workers do), but its environment still names its run.
Standard library and psutil only, because the guard's companion process imports this when it starts.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import psutil

OWNER = "SPARRING_OWNER"  # environment variable of what a run starts: the mark of the run's process
GUARD = "SPARRING_GUARD"  # environment variable of a guard's companion, which is never ended: its settings in JSON

PATIENCE = 2.0  # seconds between SIGTERM and SIGKILL
PASSES = 3  # a process may start another one while it is being ended


def mark_of(pid: int) -> str:
    """A name of a process that is unique until a reboot: pid, start time, and pid namespace."""
    return f"{pid}-{_born(pid)}-{_namespace()}"


def owner_of(process: psutil.Process) -> str | None:
    """The mark that a process inherited; None when it has none, or when its environment cannot be read."""
    return _environment(process).get(OWNER)


def guarded_by(process: psutil.Process) -> str | None:
    """The settings of a guard's companion; None for any other process."""
    return _environment(process).get(GUARD)


def is_alive(mark: str) -> bool | None:
    """Whether the process of a mark still runs; None when that is unknown: no mark, or that of another container."""
    parts = re.fullmatch(r"(\d+)-(\d+)-(.*)", mark)
    if parts is None or parts[3] != _namespace():
        return None
    try:
        return _born(int(parts[1])) == parts[2] and is_living(psutil.Process(int(parts[1])))
    except (psutil.NoSuchProcess, OSError):
        return False


def is_stopped(process: psutil.Process) -> bool:
    """Whether a process is stopped, by Ctrl-Z or by a debugger."""
    try:
        return process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.NoSuchProcess:
        return False


def is_living(process: psutil.Process) -> bool:
    """Whether a process runs; False for a zombie too."""
    try:
        return process.is_running() and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def marked(mark: str) -> list[psutil.Process]:
    """Living processes that inherited a mark."""
    return [p for p in psutil.process_iter() if owner_of(p) == mark and is_living(p)]


def children(owner: psutil.Process) -> list[psutil.Process]:
    """Living descendants of a living process, including forks without a mark; guards' companions are left out."""
    try:
        processes = owner.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [p for p in processes if is_living(p) and guarded_by(p) is None]


def descendants(owner: psutil.Process, mark: str) -> set[psutil.Process]:
    return {*children(owner), *marked(mark)} - {owner}


def orphans() -> list[psutil.Process]:
    """Processes that a run started and that outlived it, in any session."""
    outlived = []
    for process in psutil.process_iter():
        mark = owner_of(process)
        if mark is not None and is_living(process) and is_alive(mark) is False:
            outlived.append(process)
    return outlived


def end(find: Callable[[], Iterable[psutil.Process]], patience: float = PATIENCE) -> list[psutil.Process]:
    """Terminate, then kill, what `find` returns, until it returns nothing; returns what is left after a few passes."""
    for _ in range(PASSES):
        processes = list(find())
        if not processes:
            return []
        for process in processes:
            send(process, signal.SIGTERM)
        for process in _outlasting(processes, patience):
            send(process, signal.SIGKILL)
        _outlasting(processes, patience)
    return [p for p in find() if is_living(p)]


def send(process: psutil.Process, number: signal.Signals) -> None:
    """Send a signal to a process, unless it has ended or belongs to another user; the caller looks again afterwards."""
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        process.send_signal(number)


def openers(paths: Iterable[Path]) -> dict[Path, psutil.Process]:
    """The process of this user that has each of these files open. A lock file is open while its lock is held."""
    by_name = {str(path.resolve()): path for path in paths}
    holders: dict[Path, psutil.Process] = {}
    for process in psutil.process_iter() if by_name else ():
        try:
            for file in process.open_files():
                if file.path in by_name:
                    holders[by_name[file.path]] = process
        except (psutil.Error, OSError):
            continue  # ended meanwhile, or belongs to another user
    return holders


def describe(process: psutil.Process) -> str:
    """The pid and the start of the command line, for a person."""
    try:
        words = " ".join(" ".join(process.cmdline()).split()) or process.name()
    except psutil.Error:
        words = "?"
    return f"pid {process.pid} ({words[:77] + '...' if len(words) > 80 else words})"


def _outlasting(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    deadline = time.monotonic() + seconds
    while left := [p for p in processes if is_living(p)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return left


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def _born(pid: int) -> str:
    """When a process started. On Linux in ticks since boot, which do not change when the wall clock is set."""
    if sys.platform == "linux":
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return stat.rpartition(")")[2].split()[19]
    return str(int(psutil.Process(pid).create_time() * 100))


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
