"""Whatever a step hangs in, and however a run dies: it ends in bounded time, and nothing of it is left.

Each run is a process of its own. What it leaves is looked for by a mark of the tests, not by that of the guard.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from sparring.flows.config import Steps
from sparring.flows.supervise.crash_report import report_crash
from sparring.flows.supervise.guard import Guard
from sparring.flows.supervise.processes import OWNER, guarded_by, mark_of
from sparring.flows.supervise.step_limits import beating, limited
from sparring.loop.errors import EnvironmentProblem, StepTimeout
from sparring.loop.parts import passthrough
from sparring.loop.round import play
from tests.helpers import hanging
from tests.helpers.fake_loop import contents
from tests.helpers.hanging import GRACE, STEPS, TIMEOUT
from tests.helpers.paths import ROOT
from tests.helpers.started import BOUND, STARTED, Started, start

pytestmark = [pytest.mark.skipif(sys.platform == "win32", reason="guards need POSIX signals"), pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def tidy() -> Iterator[None]:
    """Tests that fail leave nothing running either."""
    yield
    for process in [relative for run in STARTED for relative in run.relatives()]:
        process.kill()
    STARTED.clear()


def said(out: str) -> list[list[Any]]:
    return [json.loads(line) for line in out.splitlines()]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stores in which the initial policy is measured, to hang in; and one where a round was played."""
    folder = tmp_path_factory.mktemp("stores")
    made = {name: folder / f"{name}.duckdb" for name in ("undisturbed", "soft", "native")}
    parts = hanging.parts(made["undisturbed"], hanging.Trap())
    play(hanging.round_zero(hanging.RUN, hanging.INITIAL), parts)
    for name in ("soft", "native"):
        shutil.copy(made["undisturbed"], made[name])
    hanging.play_one_round(parts)
    return made


@pytest.fixture(scope="module")
def hung(stores: dict[str, Path]) -> dict[str, Started]:
    """Side by side: what they do most of the time is hang."""
    return {how: start("-m", "tests.helpers.hanging", stores[how], how) for how in ("soft", "native")}


@pytest.mark.slow
def test_every_step_that_hangs_is_ended_with_its_children(hung: dict[str, Started], stores: dict[str, Path]) -> None:
    """Where signals are handled the step raises, and the same process can go on."""
    out, err = hung["soft"].process.communicate(timeout=120)
    assert err == ""
    *ends, last = said(out)
    assert last == ["complete"]
    assert [step for step, _ in ends] == list(STEPS)
    for step, message in ends:
        assert f"the step {step} took longer than " in message
        assert f"steps.{step}.timeout" in message and "spar resume" in message
    assert hung["soft"].gone()
    assert contents(stores["soft"]) == contents(stores["undisturbed"])


@pytest.mark.slow
def test_every_step_that_hangs_in_native_code_is_killed_with_its_children(
    hung: dict[str, Started], stores: dict[str, Path]
) -> None:
    """Each process is killed in the step that hangs; the next one finds the store as it was and hangs a step later."""
    out, err = hung["native"].process.communicate(timeout=120)
    *ends, last = said(out)
    assert last == ["complete"]
    for wanted, (step, code, took, message) in zip(STEPS, ends, strict=True):
        assert (step, code) == (wanted, -signal.SIGKILL)
        assert TIMEOUT + GRACE <= took < BOUND
        assert message.startswith(f"the step {step} took longer than ")
        assert "was killed" in message and f"spar: {message}" in err
    assert hung["native"].gone()
    assert contents(stores["native"]) == contents(stores["undisturbed"])


KILLED = """
import os, subprocess, sys, time
from pathlib import Path
from sparring.flows.supervise.guard import Guard
with Guard(error_file=Path(sys.argv[1]), flow_run=(sys.argv[2], "the-id")):
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    if os.fork() == 0:  # no mark of the guard in its environment
        os.setsid()
        time.sleep(1000)
    time.sleep(2.5)  # the companion looks at children now and then
    print("ready", flush=True)
    time.sleep(1000)
"""


class Server:
    """Prefect's API as far as a crash needs it: one flow run, in the state that it is given."""

    def __init__(self, state: str) -> None:
        asked: list[tuple[str, str, Any, str | None]] = []
        self.asked = asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(("GET", self.path, None, self.headers["Authorization"]))
                self._answer({"id": "the-id", "state": {"type": state}})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                asked.append(("POST", self.path, body, self.headers["Authorization"]))
                self._answer({"status": "ACCEPT"})

            def _answer(self, body: Any) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/api"

    def __enter__(self) -> Self:
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.http.shutdown()
        self.http.server_close()


def test_a_killed_run_leaves_no_process_and_prefect_hears_of_it(tmp_path: Path) -> None:
    with Server("RUNNING") as prefect:
        run = start("-c", KILLED, tmp_path / "runs" / "error.txt", prefect.url)
        assert run.process.stdout is not None and run.process.stdout.readline() == "ready\n"
        assert len(run.relatives()) == 4  # itself, its two children, its companion
        run.process.kill()
        _, err = run.process.communicate(timeout=BOUND)
        assert run.gone()
    for said in (err, (tmp_path / "runs" / "error.txt").read_text()):
        assert f"the process of the run (pid {run.process.pid}) was killed" in said and "spar resume" in said
    (get, path, _, _), (post, to, body, _) = prefect.asked
    assert (get, path, post, to) == ("GET", "/api/flow_runs/the-id", "POST", "/api/flow_runs/the-id/set_state")
    assert (body["state"]["type"], body["state"]["name"], body["force"]) == ("CRASHED", "Crashed", True)
    assert "was killed" in body["state"]["message"]


@pytest.mark.parametrize(
    ("believed", "told"), [("PENDING", "CRASHED"), ("CANCELLING", "CANCELLED"), ("COMPLETED", None), ("CRASHED", None)]
)
def test_prefect_is_told_what_it_does_not_know(believed: str, told: str | None) -> None:
    with Server(believed) as prefect:
        assert report_crash(prefect.url, "the-id", "why") is None
    assert [body["state"]["type"] for _, _, body, _ in prefect.asked if body] == ([told] if told else [])


def test_prefect_is_asked_with_the_credentials_of_its_own_client(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server("RUNNING") as prefect:
        monkeypatch.setenv("PREFECT_API_KEY", "key")
        report_crash(prefect.url, "the-id", "why")
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", "user:word")
        report_crash(prefect.url, "the-id", "why")
    assert [given for *_, given in prefect.asked] == ["Bearer key"] * 2 + ["Basic dXNlcjp3b3Jk"] * 2


def test_a_server_that_does_not_answer_is_named() -> None:
    with Server("RUNNING") as prefect:
        pass  # closed: nobody listens there now
    problem = report_crash(prefect.url, "the-id", "why")
    assert problem is not None and prefect.url in problem and "the-id" in problem


def test_children_of_a_step_end_with_it_and_those_of_the_run_do_not() -> None:
    with Guard() as guard:
        of_the_run = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        with pytest.raises(StepTimeout), guard.limit("judge", timeout=0.3, stall=None):
            of_the_step = subprocess.Popen(["sleep", "1000"], start_new_session=True)
            time.sleep(1000)
        assert of_the_step.wait(0.1) == -signal.SIGTERM
        assert of_the_run.poll() is None
    assert of_the_run.wait(0.1) == -signal.SIGTERM


def test_beats_keep_a_step_alive_and_silence_ends_it() -> None:
    with Guard() as guard:
        with guard.limit("sample", timeout=None, stall=1.0):
            for _ in range(8):
                time.sleep(0.25)
                guard.beat()
        began = time.monotonic()
        with pytest.raises(StepTimeout, match=r"made no progress for 0.4 s .* steps\.stall"):  # noqa: SIM117
            with guard.limit("judge", timeout=1000, stall=0.4):
                time.sleep(1000)
        assert time.monotonic() - began < BOUND


def test_a_chunk_is_a_beat_and_a_step_has_its_own_limit() -> None:
    def chunks() -> Iterator[list[Any]]:
        for _ in range(5):
            time.sleep(0.4)
            yield []

    def sample(seconds: float) -> int:
        time.sleep(seconds)
        return len(list(beating(passthrough)("sample", 5, chunks())))

    steps = Steps.model_validate({"stall": 1.2, "sample": {"timeout": 100}})
    with Guard() as guard:
        assert limited(guard, steps)(sample, 0) == 5  # longer than `stall` in all
        with pytest.raises(StepTimeout, match=r"steps\.stall"):
            limited(guard, steps)(sample, 1000)


def test_what_swallows_exceptions_does_not_swallow_the_end() -> None:
    async def in_a_callback() -> None:
        asyncio.get_running_loop().call_soon(time.sleep, 1000)
        await asyncio.sleep(1000)

    def in_a_retry() -> None:
        while True:
            try:
                time.sleep(1000)
            except Exception:
                continue

    with Guard() as guard:
        for hang in (lambda: asyncio.run(in_a_callback()), in_a_retry):
            with pytest.raises(StepTimeout), guard.limit("judge", timeout=0.3, stall=None):
                hang()


def test_a_step_that_swallows_even_that_is_told_again() -> None:
    with Guard(grace=6) as guard, pytest.raises(StepTimeout):  # noqa: SIM117
        with guard.limit("judge", timeout=0.2, stall=None):
            try:
                time.sleep(1000)
            except BaseException:
                time.sleep(1000)


def test_an_alarm_that_comes_late_does_not_end_the_next_step() -> None:
    ended = 0
    with Guard() as guard:
        for i in range(60):
            try:
                with guard.limit("pair", timeout=0.01, stall=None):
                    over = time.monotonic() + 0.0098 + i * 1e-5  # as the limit passes
                    while time.monotonic() < over:
                        pass
            except StepTimeout:
                ended += 1
            with guard.limit("score", timeout=1000, stall=None):
                time.sleep(0.005)
    assert ended > 0


def test_a_run_that_a_person_stopped_does_not_lose_its_time(tmp_path: Path) -> None:
    script = (
        "import time\nfrom sparring.flows.supervise.guard import Guard\n"
        "with Guard() as guard, guard.limit('learn', timeout=4, stall=None):\n"
        "    print('ready', flush=True)\n    time.sleep(2)\nprint('done')"
    )
    run = start("-c", script)
    assert run.process.stdout is not None and run.process.stdout.readline() == "ready\n"
    run.process.send_signal(signal.SIGSTOP)
    time.sleep(5)
    run.process.send_signal(signal.SIGCONT)
    out, err = run.process.communicate(timeout=BOUND)
    assert (out, err, run.process.returncode) == ("done\n", "", 0)


@pytest.mark.slow
def test_closing_leaves_nothing(tmp_path: Path) -> None:
    """As often as a nightly run of three weeks: no handle, no process, no handler, no mark."""
    handler, before = signal.getsignal(signal.SIGALRM), set(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with Guard() as guard, guard.limit("sample", timeout=100, stall=None):
            child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
            assert mark_of(os.getpid()) == os.environ[OWNER]
        assert child.wait(0) == -signal.SIGTERM
    assert signal.getsignal(signal.SIGALRM) == handler
    assert set(os.listdir("/proc/self/fd")) == before
    assert OWNER not in os.environ
    assert [p for p in psutil.Process().children(recursive=True) if "guard_process" in " ".join(p.cmdline())] == []
    guard.close()  # again: nothing happens


def test_alarms_of_others_reach_them() -> None:
    heard = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: heard.append(number))
    try:
        with Guard():
            os.kill(os.getpid(), signal.SIGALRM)
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert heard == [signal.SIGALRM]


def test_one_guard_a_process_and_one_limit_at_a_time() -> None:
    with Guard() as guard:
        with pytest.raises(RuntimeError, match="already has a Guard"):
            Guard().__enter__()
        with guard.limit("sample", timeout=None, stall=None):  # noqa: SIM117
            with pytest.raises(RuntimeError, match="within another"), guard.limit("judge", timeout=None, stall=None):
                pass


def test_a_companion_that_is_gone_is_reported_by_the_next_limit() -> None:
    with Guard() as guard:
        companion = next(p for p in psutil.Process().children() if guarded_by(p))
        companion.kill()
        psutil.wait_procs([companion], timeout=10)
        with pytest.raises(EnvironmentProblem, match=f"pid {companion.pid}"):  # noqa: SIM117
            with guard.limit("sample", timeout=1, stall=None):
                pass


@pytest.mark.slow
def test_the_companion_imports_nothing_heavy() -> None:
    script = "import sys, sparring.flows.supervise.companion\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "psutil" in loaded
    assert loaded & {"torch", "pydantic", "duckdb", "pyarrow", "prefect", "yaml", "numpy", "urllib.request"} == set()
