"""SIGTERM ends a run within seconds, whatever it hangs in, and SIGTERMs that are not the run's do not."""

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparring.loop.round import play
from tests.helpers import hanging
from tests.helpers.fake_loop import contents
from tests.helpers.started import BOUND, STARTED, start

pytestmark = pytest.mark.slow

REACTS, UNWINDS = 3.0, 8.0


@pytest.fixture(scope="module", autouse=True)
def tidy() -> Iterator[None]:
    yield
    for process in [relative for run in STARTED for relative in run.relatives()]:
        process.kill()
    STARTED.clear()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("stores") / "undisturbed.duckdb"
    parts = hanging.parts(store, hanging.Trap())
    play(hanging.round_zero(hanging.RUN, hanging.INITIAL), parts)
    shutil.copy(store, store.with_name("begun.duckdb"))
    hanging.play_one_round(parts)
    return store


@pytest.mark.parametrize(
    ("how", "code", "least"),
    [
        ("native", -signal.SIGKILL, REACTS),
        ("released", 128 + signal.SIGTERM, REACTS),
        ("soft", 128 + signal.SIGTERM, 0),
    ],
)
@pytest.mark.parametrize("step", ["sample", "learn"])
def test_a_hang_ends_with_all_that_it_started(
    undisturbed: Path, tmp_path: Path, how: str, step: str, code: int, least: float
) -> None:
    store = tmp_path / "store.duckdb"
    shutil.copy(undisturbed.with_name("begun.duckdb"), store)
    run = start("-m", "tests.helpers.hanging", store, how, step)
    reached, error = store.with_suffix(".reached"), store.with_suffix(".error")
    until = time.monotonic() + BOUND
    while not (reached.exists() and reached.read_text() == step) and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.3)  # the hang begins, and its child
    began = time.monotonic()
    run.process.terminate()
    _, err = run.process.communicate(timeout=BOUND)
    took = time.monotonic() - began
    assert (run.process.returncode, least <= took < REACTS + 5) == (code, True), (took, err)
    assert run.gone()
    if least:
        for said in (err, error.read_text()):
            assert "SIGTERM" in said and f"the step {step} " in said and "spar resume" in said
    else:
        assert not error.exists()
    hanging.play_one_round(hanging.parts(store, hanging.Trap()))
    assert contents(store) == contents(undisturbed)


HEAD = """
import asyncio, ctypes, multiprocessing, os, signal, sys, time
from pathlib import Path
from sparring.flows.supervise.guard import Guard

def hang():
    mutex, native = ctypes.create_string_buffer(64), ctypes.PyDLL(None)
    print("ready", flush=True)
    native.pthread_mutex_lock(mutex)
    native.pthread_mutex_lock(mutex)

signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
with Guard(error_file=Path(sys.argv[1])) as guard:
"""


def terminate_when_ready(script: str, folder: Path) -> tuple[int, float, str]:
    """Exit code, seconds from SIGTERM to the end, and the error file."""
    error = folder / "error.txt"
    run = start("-c", HEAD + script, error)
    assert run.process.stdout is not None and run.process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    began = time.monotonic()
    run.process.terminate()
    run.process.communicate(timeout=BOUND)
    took = time.monotonic() - began
    assert run.gone()
    return run.process.returncode, took, error.read_text() if error.exists() else ""


def test_what_hangs_outside_of_a_step_has_a_little_longer(tmp_path: Path) -> None:
    code, took, error = terminate_when_ready("    hang()", tmp_path)
    assert code == -signal.SIGKILL and UNWINDS <= took < UNWINDS + 5 and "the run did not end" in error


def test_a_step_that_is_left_may_still_unwind(tmp_path: Path) -> None:
    script = (
        "    try:\n        with guard.limit('learn', timeout=None, stall=None):\n"
        "            print('ready', flush=True)\n            time.sleep(1000)\n"
        "    finally:\n        time.sleep(4)"  # longer than a step has
    )
    code, took, error = terminate_when_ready(script, tmp_path)
    assert (code, error) == (143, "") and took >= 4


def test_supervisors_that_signal_every_process_do_not_end_the_watch(tmp_path: Path) -> None:
    script = (
        "    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):\n"
        "        time.sleep(0.5)\n        os.kill(guard._companion.pid, number)\n"
        "    with guard.limit('learn', timeout=None, stall=None):\n        hang()"
    )
    code, _, error = terminate_when_ready(script, tmp_path)
    assert code == -signal.SIGKILL and "the step learn did not end" in error


def test_after_asyncio_had_the_signals_they_are_heard_again(tmp_path: Path) -> None:
    script = (
        "    async def own():\n        loop, heard = asyncio.get_running_loop(), asyncio.Event()\n"
        "        loop.add_signal_handler(signal.SIGUSR2, heard.set)\n"
        "        with guard.limit('judge', timeout=None, stall=None):\n"
        "            loop.call_later(0.1, os.kill, os.getpid(), signal.SIGUSR2)\n"
        "            await asyncio.wait_for(heard.wait(), 10)\n"
        "        loop.remove_signal_handler(signal.SIGUSR2)\n"
        "    asyncio.run(own())\n"
        "    with guard.limit('learn', timeout=None, stall=None):\n        hang()"
    )
    code, took, error = terminate_when_ready(script, tmp_path)
    assert code == -signal.SIGKILL and took < REACTS + 5 and "the step learn did not end" in error


def test_a_forked_worker_that_is_ended_does_not_end_the_run(tmp_path: Path) -> None:
    """It inherits the handler, and without care the descriptor on which its signal would look like the run's."""
    script = (
        "    fork, threads = multiprocessing.get_context('fork'), __import__('threading')\n"
        "    def work():\n        worker = fork.Process(target=time.sleep, args=(1000,))\n"
        "        worker.start()\n        time.sleep(0.3)\n        worker.terminate()\n        worker.join()\n"
        "    with guard.limit('judge', timeout=None, stall=None):\n"
        "        work()\n        thread = threads.Thread(target=work)\n        thread.start()\n        thread.join()\n"
        "        time.sleep(5)\n"
        "    print('alive', flush=True)"
    )
    run = start("-c", HEAD + script, tmp_path / "error.txt")
    out, _ = run.process.communicate(timeout=BOUND)
    assert (run.process.returncode, out) == (0, "alive\n") and run.gone()
