"""What the doctor finds, each made to be there first."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

from sparring.doctor import Finding, machine, places, running
from sparring.flows.supervise.processes import guarded_by, is_living, orphans
from tests.helpers.paths import ROOT
from tests.helpers.records import filled_store
from tests.helpers.spar import environment, spar_many


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


@contextmanager
def holder(lock: Path) -> "Iterator[subprocess.Popen[str]]":
    script = (
        "import sys, time\nfrom filelock import FileLock\nlock = FileLock(sys.argv[1])\nlock.acquire()\n"
        "print('held', flush=True)\ntime.sleep(1000)"
    )
    lock.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", script, str(lock)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_where_nothing_is_nothing_is_wrong(tmp_path: Path) -> None:
    findings = places.examine(tmp_path / "store.duckdb")
    assert all(finding.ok for finding in findings if finding.name != "disk")
    assert "none at" in by_name(findings)["store"].found
    assert [*tmp_path.iterdir()] == []


def test_a_disk_with_no_room_for_the_next_update(tmp_path: Path) -> None:
    store = tmp_path / "store.duckdb"
    free = shutil.disk_usage(tmp_path).free
    assert not places.disk(store, free // 4).ok  # seven times that: a checkpoint, and its state twice
    enough = places.disk(store, free // 8)
    assert enough.ok or free < places.SPARE
    assert "permanently" in enough.found


def test_the_largest_checkpoint_of_the_store_is_the_measure(tmp_path: Path) -> None:
    filled = filled_store(tmp_path / "store.duckdb")
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(64 << 20))
    filled.store.add([[replace(filled.initial, id="checkpoint_big", path=str(folder))]])
    found = by_name(places.examine(tmp_path / "store.duckdb"))
    assert "1 runs" in found["store"].found
    assert "up to 470 MB, 67.1 MB of that" in found["disk"].found  # 7 x 64 MiB, and 64 MiB


def test_a_file_that_is_no_store_is_said(tmp_path: Path) -> None:
    (tmp_path / "store.duckdb").write_text("not a database")
    assert not by_name(places.examine(tmp_path / "store.duckdb"))["store"].ok


def test_who_holds_a_lock_and_that_it_is_stopped(tmp_path: Path) -> None:
    lock = tmp_path / "runs" / "tiny-1" / "run.lock"
    with holder(lock) as process:
        found = by_name(places.examine(tmp_path / "store.duckdb"))
        assert f"run tiny-1 held by pid {process.pid}" in found["locks"].found
        assert "stopped" not in found
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        stopped = by_name(places.examine(tmp_path / "store.duckdb"))["stopped"]
        assert not stopped.ok and f"kill -CONT {process.pid}" in stopped.remedy
    assert lock.exists()  # a file that is left over is no lock
    assert "tiny-1" not in by_name(places.examine(tmp_path / "store.duckdb"))["locks"].found


def test_partial_files_of_a_dead_run_but_not_of_a_live_one(tmp_path: Path) -> None:
    for run in ("dead-1", "live-1"):
        folder = tmp_path / "runs" / run / "round-0001.partial"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(bytes(1000))
    with holder(tmp_path / "runs" / "live-1" / "run.lock"):
        found = by_name(places.examine(tmp_path / "store.duckdb"))["partial files"]
    assert not found.ok and "dead-1" in found.found and "live-1" not in found.found
    assert "spar resume" in found.remedy


ORPHANED = """
import subprocess, time
from sparring.flows.supervise.guard import Guard
with Guard():
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True, stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
    time.sleep(1000)
"""


def test_an_orphan_is_found_and_ended() -> None:
    """The run and its companion are both killed, as when memory runs out."""
    command = [sys.executable, "-c", ORPHANED]
    run = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    child = psutil.Process(int(run.stdout.readline()))
    assert child not in orphans()  # its run lives
    for process in (*(p for p in psutil.Process(run.pid).children() if guarded_by(p)), psutil.Process(run.pid)):
        process.kill()
    run.communicate()
    assert child in orphans()
    told = running.left_over([child], kill=False)
    assert not told.ok and f"pid {child.pid}" in told.found and "--kill-orphans" in told.remedy
    assert running.left_over([child], kill=True).ok
    assert not is_living(child)


@contextmanager
def prefect_of(version: str, runs: list[dict[str, Any]]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(version)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(runs)

        def _answer(self, body: Any) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/api"
        server.shutdown()


def test_prefect_is_asked_who_it_is() -> None:
    assert "temporary" in running.prefect(None)[0].found
    with prefect_of("99.0.1", []) as url:
        assert [(f.ok, "99.0.1" in f.found) for f in running.prefect(url)] == [(True, True)]
    with prefect_of("2.20.1", []) as url:
        assert [f.ok for f in running.prefect(url)] == [False]
    gone = running.prefect(url)[0]
    assert not gone.ok and url in gone.found and "PREFECT_API_URL" in gone.remedy


def test_a_flow_run_that_no_process_plays_is_a_zombie() -> None:
    runs = [{"id": "id-of-a-dead-one", "name": "dead"}, {"id": "id-of-a-live-one", "name": "live"}]
    alive = subprocess.Popen(["sleep", "1000"], env=environment() | {running.ENV: "id-of-a-live-one"})
    try:
        with prefect_of("99.0.1", runs) as url:
            _, zombie = running.prefect(url)
    finally:
        alive.kill()
        alive.wait()
    assert not zombie.ok and "dead" in zombie.found and "id-of-a-dead-one" in zombie.remedy


def test_vllm_that_crashes_is_a_finding() -> None:
    crashing = subprocess.Popen(
        [sys.executable, "-c", "import os; os.abort()"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    found = machine.vllm(crashing)
    assert not found.ok and "code -6" in found.found and "sparring[cpu]" in found.remedy


@pytest.mark.slow
def test_the_commands_of_the_page_are_real(tmp_path: Path) -> None:
    page = (ROOT / "docs/limits.md").read_text()
    commands = [line.split()[1:] for line in page.splitlines() if line.startswith("spar ")]
    assert ["doctor", "--kill-orphans"] in commands
    asked = spar_many(*((*words, "--help") for words in commands), cwd=tmp_path)  # starts no engine, ends no process
    for words, said in zip(commands, asked, strict=True):
        assert (said.code, said.err) == (0, "")
        assert [word for word in words if word.startswith("--") and word not in said.out] == []
