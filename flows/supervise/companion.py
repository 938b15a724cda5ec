"""The companion of a run's process: it times the steps, and ends the processes that a run leaves behind. See guard.py.

It is a separate process because a thread cannot end a hang in native code that holds the interpreter, and does not
survive a SIGKILL. It uses only the standard library and psutil, so it starts in a tenth of a second.

Its settings are in its environment. On stdin it reads lines of JSON: `["enter", {...}]`, `["beat"]`, `["leave"]` and
finally `["bye"]`. Before each SIGALRM it writes the limit that has passed and its message to stdout: `[number, text]`.
"""

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from sparring.flows.supervise.clock import RESUME, Clock, Limit
from sparring.flows.supervise.crash_report import report_crash
from sparring.flows.supervise.processes import GUARD, children, end, is_living, is_stopped, mark_of, marked, send

TICK = 1.0  # seconds between looks at the run's process
SNAPSHOT = 2.0  # seconds between looks at its children
ALARMS = 3  # within the grace period, because an exception raised in a callback may be lost


class Lines:
    """Lines of JSON from a pipe."""

    def __init__(self, fd: int) -> None:
        self._fd, self._rest, self._open = fd, b"", True

    def read(self, seconds: float) -> Iterator[Any]:
        """Lines that are available, or that come within `seconds`."""
        if not self._open:
            time.sleep(min(seconds, TICK / 10))  # the writing process is about to end
        elif select.select([self._fd], [], [], seconds)[0]:
            data = os.read(self._fd, 1 << 16)
            self._open = bool(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            yield from map(json.loads, lines)


class Family:
    """The run's process and the processes that it started."""

    def __init__(self, mark: str) -> None:
        self.mark, self.owner = mark, owner_of(mark)
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


class Companion:
    """Watches a run's process until it says goodbye, ends, or must be killed. Times are those of `clock`."""

    def __init__(self, family: Family, grace: float, lines: Lines) -> None:
        self.family, self.grace, self.lines = family, grace, lines
        self.clock = Clock()
        self.limit: Limit | None = None
        self.ended: Limit | None = None  # the passed limit of a run that must now say goodbye
        self.said_bye = False

    def watch(self) -> str | None:
        """Watch; returns the reason when the process must be killed."""
        while self.family.alive() and not self.said_bye:
            for line in self.lines.read(self._rest()):
                self._hear(*line)
            self.clock.tick(self.family.stopped())
            self.family.look()
            if why := self._check():
                return why
        return None

    def _rest(self) -> float:
        """Seconds until the next look."""
        wake = TICK
        if self.limit and self.limit.passed is None:
            wake = self.limit.passes()[0] - self.clock.now()
        elif self.limit or self.ended:
            wake = self.grace / ALARMS / 10
        return max(0.0, min(TICK, wake))

    def _hear(self, what: str, *values: Any) -> None:
        now = self.clock.now()
        if what == "enter":
            self.limit, self.ended = Limit(**values[0], started=now, beaten=now), None
        elif what == "beat" and self.limit:
            self.limit.beaten = now
        elif what == "leave" and self.limit:
            self.ended = self.limit if self.limit.passed is not None else None
            self.limit = None
        elif what == "bye":
            self.said_bye = True

    def _check(self) -> str | None:
        """Send the alarms that are due; returns the reason when the process must be killed."""
        now, limit, over = self.clock.now(), self.limit, self.limit or self.ended
        if limit and limit.passed is None and now >= limit.passes()[0]:
            limit.passed, limit.text = now, limit.passes()[1]
            self._alarm(limit)
        elif limit and limit.passed is not None and now >= limit.alarmed + self.grace / ALARMS:
            self._alarm(limit)
        if over is None or over.passed is None or now < over.passed + self.grace * (1 if limit else 2):
            return None
        return f"{over.text}. It did not end by itself, so its process was killed"

    def _alarm(self, limit: Limit) -> None:
        limit.alarmed = self.clock.now()
        if limit.heard:
            with contextlib.suppress(BrokenPipeError):  # the process is gone, as the next look shows
                os.write(sys.stdout.fileno(), json.dumps([limit.number, limit.text]).encode() + b"\n")
            self.family.alarm()


def owner_of(mark: str) -> psutil.Process | None:
    """The process of a mark; None when it is gone."""
    try:
        process = psutil.Process(int(mark.partition("-")[0]))
        return process if mark_of(process.pid) == mark else None
    except (psutil.NoSuchProcess, OSError):
        return None


def leave_word(text: str, error_file: Path | None) -> None:
    """Write a message in place of the run's process to its error file and to stderr."""
    if error_file:
        error_file.parent.mkdir(parents=True, exist_ok=True)
        error_file.write_text(f"{text}\n", encoding="utf-8")
    say(text)


def say(text: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that is closed
        print(f"spar: {text}", file=sys.stderr, flush=True)


def gone(mark: str) -> str:
    return (
        f"the process of the run (pid {mark.partition('-')[0]}) was killed, or crashed in native code (dmesg shows if "
        f"memory ran out). {RESUME.capitalize()}"
    )


def written_since(file: Path, born: float) -> bool:
    return file.exists() and file.stat().st_mtime > born


def main() -> None:
    mark, grace, error_path, flow_run = json.loads(os.environ[GUARD])
    error_file = Path(error_path) if error_path else None
    family = Family(mark)
    companion = Companion(family, grace, Lines(sys.stdin.fileno()))
    why = companion.watch()
    if why:
        leave_word(why, error_file)  # before the kill, so that it is there when the process ends
        family.kill_owner()
    family.end_children()
    if companion.said_bye:
        return
    if not why:
        explained = error_file is not None and written_since(error_file, family.born)
        leave_word(gone(mark), None if explained else error_file)
    if flow_run and (problem := report_crash(flow_run[0], flow_run[1], why or gone(mark))):
        say(problem)


if __name__ == "__main__":
    main()
