"""The companion of a run's process: it times the steps, and ends the processes that a run leaves behind. See guard.py.

It is a separate process because a thread cannot end a hang in native code that holds the interpreter, and does not
survive a SIGKILL. It uses only the standard library and psutil, so it starts in a tenth of a second.

Its settings are in its environment. On stdin it reads lines of JSON: `["enter", {...}]`, `["beat"]`, `["leave"]` and
finally `["bye"]`; on another pipe, the signals that the run's process gets (wakeup.py). Before each SIGALRM it writes
the limit that has passed and its message to stdout: `[number, text]`.
"""

import contextlib
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from sparring.flows.supervise.clock import RESUME, Clock, Limit
from sparring.flows.supervise.crash_report import report_crash
from sparring.flows.supervise.family import Family
from sparring.flows.supervise.processes import GUARD

TICK = 1.0  # seconds between looks at the run's process
REACTS = 3.0  # seconds from SIGTERM to the end of the step, which a hang in native code does not reach
UNWINDS = 8.0  # seconds from SIGTERM to the end of the run; Docker's SIGKILL comes after 10, that of others later
ALARMS = 3  # within the grace period, because an exception raised in a callback may be lost

# Supervisors send them to every process of a service, and this one must outlive the run.
IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class Pipes:
    """What the run's process writes: lines of JSON, and a byte per signal, as its handler in C does."""

    def __init__(self, lines: int, signals: int) -> None:
        self._lines, self._signals, self._rest = lines, signals, b""
        self._open = {lines, signals}

    def read(self, seconds: float) -> tuple[list[Any], bytes]:
        """Lines and signals that are available, or that come within `seconds`."""
        if not self._open:
            time.sleep(min(seconds, TICK / 10))  # the writing process is about to end
        ready = select.select(self._open, [], [], seconds)[0] if self._open else []
        data = {fd: os.read(fd, 1 << 16) for fd in ready}
        self._open -= {fd for fd, text in data.items() if not text}
        *lines, self._rest = (self._rest + data.get(self._lines, b"")).split(b"\n")
        return [json.loads(line) for line in lines], data.get(self._signals, b"")


class Companion:
    """Watches a run's process until it says goodbye, ends, or must be killed. Times are those of `clock`."""

    def __init__(self, family: Family, grace: float, pipes: Pipes) -> None:
        self.family, self.grace, self.pipes = family, grace, pipes
        self.clock = Clock()
        self.limit: Limit | None = None
        self.ended: Limit | None = None  # the passed limit of a run that must now say goodbye
        self.terminated: float | None = None  # when SIGTERM came
        self.said_bye = False

    def watch(self) -> str | None:
        """Watch; returns the reason when the process must be killed."""
        while self.family.alive() and not self.said_bye:
            lines, signals = self.pipes.read(self._rest())
            for line in lines:
                self._hear(*line)
            if signal.SIGTERM in signals and self.terminated is None:
                self.terminated = self.clock.now()
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
        if self.terminated is not None:
            wake = min(wake, self.terminated + self._patience() - self.clock.now())
        return max(0.0, min(TICK, wake))

    def _patience(self) -> float:
        return REACTS if self.limit else UNWINDS

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
        if self.terminated is not None and now >= self.terminated + self._patience():
            return _outlasted(self._patience(), limit)
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


def _outlasted(seconds: float, limit: Limit | None) -> str:
    what = f"the step {limit.what}" if limit else "the run"
    return f"SIGTERM: {what} did not end by itself within {seconds:g} s and was killed. {RESUME.capitalize()}"


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
    mark, grace, error_path, flow_run, signals_fd, exit_fd = json.loads(os.environ[GUARD])
    error_file = Path(error_path) if error_path else None
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    family = Family(mark, exit_fd)
    companion = Companion(family, grace, Pipes(sys.stdin.fileno(), signals_fd))
    why = companion.watch()
    if why:
        leave_word(why, error_file)  # before the kill, so that it is there when the process ends
        if companion.terminated is not None:
            family.ask_owner_to_end()
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
