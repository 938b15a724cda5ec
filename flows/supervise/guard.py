"""Limits that end a step in any case, and processes that never outlive their run.

    with Guard() as guard:
        with guard.limit("sample", timeout=600, stall=60):
            ...

A companion process (companion.py) keeps the time. When a limit passes it sends SIGALRM, which raises in the main thread
and unwinds the step. A process that hangs where no signal reaches it is killed `grace` seconds later, with all that it
started; so is one that hangs when SIGTERM comes (wakeup.py). SIGUSR1 asks the run to save and leave (leaving.py). When
the process of the run dies, by any signal, the companion ends what it started and reports to Prefect. Processes that a
run starts inherit a mark in their environment, by which they are found in any session.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Self

import psutil

from sparring.flows.supervise.leaving import listen, stop_listening
from sparring.flows.supervise.processes import GUARD, OWNER, PASSES, PATIENCE, descendants, end, mark_of
from sparring.flows.supervise.wakeup import Wakeup
from sparring.loop.errors import EnvironmentProblem, StepTimeout

HELD_BACK = 1.0  # maximum seconds between two beats that are sent
MACHINERY = (__file__, contextmanager.__code__.co_filename)  # the code between a limit and its block


class Alarm(KeyboardInterrupt):
    """A limit has passed. A KeyboardInterrupt, because asyncio and retries swallow other exceptions."""


class Guard:
    """The guard of a process, one per process, entered before it starts anything to guard.

    When it is entered outside the main thread, no signal reaches the step, so the process is killed `grace` seconds
    after a limit passes. `error_file` gets the reason of a kill; `flow_run` is (URL of Prefect's API, id of the run).
    Raises EnvironmentProblem on Windows, which has neither these signals nor this kind of pipe.
    """

    _open: ClassVar["Guard | None"] = None
    _pid: int

    def __init__(
        self, grace: float = 30.0, error_file: Path | None = None, flow_run: tuple[str, str] | None = None
    ) -> None:
        self.grace, self.error_file, self.flow_run = grace, error_file, flow_run
        self._active: int | None = None  # the number of the current limit
        self._passed: str | None = None  # its message, once it has passed
        self._number = 0
        self._told, self._hold_back = 0.0, HELD_BACK

    def __enter__(self) -> Self:
        if sys.platform == "win32":
            raise EnvironmentProblem("limits of steps need Linux or macOS; on Windows, run inside WSL")
        if Guard._open is not None and Guard._open._pid == os.getpid():
            raise RuntimeError("this process already has a Guard; use that one")
        Guard._open = self
        self._pid, self._mark = os.getpid(), mark_of(os.getpid())
        self._wakeup = Wakeup()
        self._companion = self._start()
        self._inherited = os.environ.get(OWNER)
        os.environ[OWNER] = self._mark
        self._in_main = threading.current_thread() is threading.main_thread()
        if self._in_main:
            self._handler = signal.signal(signal.SIGALRM, self._on_alarm)
            self._leaver = listen()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the remaining processes and the companion. Closing twice does nothing."""
        if Guard._open is not self or self._pid != os.getpid():
            return
        self._stop()
        if self._in_main:
            signal.signal(signal.SIGALRM, signal.SIG_DFL if self._handler is None else self._handler)
            stop_listening(self._leaver)
        if self._inherited is None:
            os.environ.pop(OWNER, None)
        else:
            os.environ[OWNER] = self._inherited
        Guard._open = None

    @contextmanager
    def limit(self, what: str, *, timeout: float | None, stall: float | None) -> Iterator[None]:
        """Raises StepTimeout when the block takes more than `timeout` seconds, or `stall` seconds pass without a beat.

        Processes that the block started are then ended. Limits do not nest.
        """
        if self._active is not None:
            raise RuntimeError(f"the limit of {what} would start within another one; limits do not nest")
        before = self._children()
        try:
            try:
                self._enter(what, timeout, stall)
                yield
            finally:
                self._active = None
        except BaseException as error:
            if self._passed is None or not isinstance(error, Alarm | Exception):
                raise
            end(lambda: self._children() - before)
            raise StepTimeout(self._passed) from (None if isinstance(error, Alarm) else error)
        finally:
            with suppress(OSError):  # the next limit reports that the companion is gone
                self._tell("leave")

    def beat(self) -> None:
        """Report progress of the step. Cheap: most beats are not sent."""
        now = time.monotonic()
        if self._active is not None and now - self._told >= self._hold_back:
            self._told = now
            with suppress(OSError):
                self._tell("beat")

    def _enter(self, what: str, timeout: float | None, stall: float | None) -> None:
        self._passed, self._number = None, self._number + 1
        self._told, self._hold_back = time.monotonic(), min(HELD_BACK, stall / 4 if stall else HELD_BACK)
        self._active = self._number
        self._wakeup.take()
        heard = self._in_main and threading.current_thread() is threading.main_thread()
        limit = {"number": self._number, "what": what, "timeout": timeout, "stall": stall}
        try:
            self._tell("enter", limit | {"slack": self._hold_back, "heard": heard})
        except OSError as error:
            raise EnvironmentProblem(
                f"the process that keeps the limits of this run (pid {self._companion.pid}) is gone: {error}. It may "
                "have been killed when memory ran out, which dmesg shows; resume with: spar resume"
            ) from error

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        """Raise Alarm when the companion sent the signal for the current limit; pass other alarms to their handler.

        It is not raised on the way into a block or out of it, where `limit` would not catch it: a limit that has ended
        no longer matters, and one that begins gets another alarm.
        """
        assert self._companion.stdout is not None
        lines = self._companion.stdout.read() or b""
        for limit, text in map(json.loads, lines.splitlines()):
            if limit == self._active:
                self._passed = text
                if frame is None or frame.f_code.co_filename not in MACHINERY:
                    raise Alarm(text)
        if not lines and callable(self._handler):
            self._handler(number, frame)

    def _children(self) -> set[psutil.Process]:
        return descendants(psutil.Process(), self._mark)

    def _tell(self, *words: Any) -> None:
        """Send a line to the companion. Raises OSError when it is gone or does not read."""
        assert self._companion.stdin is not None
        os.write(self._companion.stdin.fileno(), json.dumps(words).encode() + b"\n")

    def _start(self) -> "subprocess.Popen[bytes]":
        environment = {name: value for name, value in os.environ.items() if name != OWNER}
        told, exit_fd = os.pipe()
        fds = (self._wakeup.reader, exit_fd)
        error_file = str(self.error_file.resolve()) if self.error_file else None
        environment[GUARD] = json.dumps([self._mark, self.grace, error_file, self.flow_run, *fds])
        # A separate session, because Ctrl-C is for the run.
        command = [sys.executable, "-m", "sparring.flows.supervise.companion"]
        pipe = subprocess.PIPE
        started = subprocess.Popen(
            command, env=environment, stdin=pipe, stdout=pipe, bufsize=0, start_new_session=True, cwd="/", pass_fds=fds
        )
        for fd in fds:
            os.close(fd)
        self._ender = threading.Thread(target=_end_when_told, args=(told,), daemon=True)
        self._ender.start()
        assert started.stdin is not None and started.stdout is not None
        for end_of_pipe in (started.stdin, started.stdout):
            os.set_blocking(end_of_pipe.fileno(), False)
        return started

    def _stop(self) -> None:
        with suppress(OSError):
            self._tell("bye")
        try:
            self._companion.wait(PASSES * 2 * PATIENCE + 5)
        except subprocess.TimeoutExpired:
            self._companion.kill()
            self._companion.wait()
        for end_of_pipe in (self._companion.stdin, self._companion.stdout):
            assert end_of_pipe is not None
            end_of_pipe.close()
        self._ender.join()
        self._wakeup.close()


def _end_when_told(told: int) -> None:
    """End the process when the companion says so: a thread can, where native code has released the interpreter."""
    with open(told, "rb", buffering=0) as pipe:
        if pipe.read(1):
            os._exit(128 + signal.SIGTERM)


@contextmanager
def guarding(error_file: Path) -> Iterator[Guard]:
    """The open guard of this process, or else one for this block."""
    if Guard._open is not None and Guard._open._pid == os.getpid():
        yield Guard._open
        return
    with Guard(error_file=error_file) as guard:
        yield guard


def beat() -> None:
    """Report progress of the step to the guard of this process, if there is one."""
    if Guard._open is not None and Guard._open._pid == os.getpid():
        Guard._open.beat()
