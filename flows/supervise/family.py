"""The process of a run and the processes that it started, as its companion sees them."""

import os
import signal
import time

import psutil

from sparring.flows.supervise.processes import children, end, is_living, is_stopped, mark_of, marked, send

SNAPSHOT = 2.0  # seconds between looks at the children
LEAVES = 1.0  # seconds for a process to end itself when it is told to


class Family:
    """The run's process and the processes that it started. What is written to `exit_fd` ends the process itself."""

    def __init__(self, mark: str, exit_fd: int) -> None:
        self.mark, self.owner, self.exit_fd = mark, owner_of(mark), exit_fd
        self.born = psutil.Process().create_time()
        self.known: set[psutil.Process] = set()  # children, listed while the owner was alive
        self.looked = 0.0

    def alive(self) -> bool:
        return self.owner is not None and is_living(self.owner)

    def stopped(self) -> bool:
        return self.owner is not None and is_stopped(self.owner)

    def alarm(self) -> None:
        if self.owner is not None:
            send(self.owner, signal.SIGALRM)

    def look(self) -> None:
        """List the children from time to time: once the owner is gone, a fork without a mark cannot be found."""
        if time.monotonic() > self.looked + SNAPSHOT:
            self._list()

    def ask_owner_to_end(self) -> None:
        """End the owner by a thread of its own, which can where native code does not hold the interpreter."""
        self._list()
        os.write(self.exit_fd, b"!")
        until = time.monotonic() + LEAVES
        while self.alive() and time.monotonic() < until:
            time.sleep(0.02)

    def kill_owner(self) -> None:
        if self.owner is not None:
            send(self.owner, signal.SIGSTOP)  # it starts nothing while its children are listed
            self._list()
            send(self.owner, signal.SIGKILL)

    def end_children(self) -> None:
        self._list()
        end(lambda: [*filter(is_living, (self.known | {*marked(self.mark)}) - {self.owner})])

    def _list(self) -> None:
        processes = children(self.owner) if self.owner is not None else []
        self.known = {*filter(is_living, self.known), *(p for p in processes if p.create_time() >= self.born)}
        self.looked = time.monotonic()


def owner_of(mark: str) -> psutil.Process | None:
    """The process of a mark; None when it is gone."""
    try:
        process = psutil.Process(int(mark.partition("-")[0]))
        return process if mark_of(process.pid) == mark else None
    except (psutil.NoSuchProcess, OSError):
        return None
