"""Play the incomplete runs of a sweep one after the other, each in its own process.

A run can end its process: memory runs out, a hanging step is killed, an engine does not free the accelerator. Separate
processes let the sweep survive that.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import yaml

from sparring.flows.run.rounds import error_file
from sparring.flows.supervise.leaving import asked_to_leave, leave_if_asked
from sparring.store.store import DuckStore
from sparring.sweeps.plan import Point

PATIENCE = 10.0  # seconds for a run to end when the sweep ends

Play = Callable[[Point], str | None]  # returns why the run is not complete, or None


def play_points(points: Sequence[Point], store: DuckStore, play: Play) -> dict[str, str]:
    """Play the runs that the store does not have; returns the reasons of those that failed, by name."""
    failed: dict[str, str] = {}
    for point in points:
        if store.complete(point.run, point.config.rounds):
            continue
        missing = sorted(point.needs & failed.keys())
        why = f"it needs {', '.join(missing)}, which failed" if missing else play(point)
        if why is not None:
            failed[point.name] = why
    return failed


def play_apart(point: Point, store: DuckStore, no_prefect: bool) -> str | None:
    """Play a run by `spar run` in its own process, which writes to stderr only: stdout is for the comparison."""
    file = error_file(store, point.run)
    config = file.with_name("config.yaml")
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump(point.config.resolved(), sort_keys=False), encoding="utf-8")
    # -P: like `spar`, do not import modules from the current folder.
    play = [sys.executable, "-P", "-m", "sparring.cli", "run", str(config)]
    command = [*play, *(["--no-prefect"] if no_prefect else [])]
    began = time.time()
    code = _exit_code(command)
    leave_if_asked()
    if code == 0:
        return None
    message = (
        file.read_text(encoding="utf-8").strip() if file.exists() and file.stat().st_mtime >= began else "see above"
    )
    return f"exit code {code}: {message}" if code > 0 else f"killed by signal {-code}: {message}"


def _exit_code(command: Sequence[str]) -> int:
    process = subprocess.Popen(command, stdout=sys.__stderr__)
    try:
        return _wait(process)
    except BaseException as stopped:
        if isinstance(stopped, KeyboardInterrupt):  # a terminal sends Ctrl-C to both
            _outwait(process)
        if process.poll() is None:
            process.terminate()
            _outwait(process)
        process.kill()  # no effect on an ended process
        process.wait()
        raise


def _wait(process: "subprocess.Popen[bytes]") -> int:
    """Wait for a run; when the sweep is asked to save and leave, so is the run."""
    while not asked_to_leave():
        with suppress(subprocess.TimeoutExpired):
            return process.wait(1)
    process.send_signal(signal.SIGUSR1)
    return process.wait()


def _outwait(process: "subprocess.Popen[bytes]") -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)
