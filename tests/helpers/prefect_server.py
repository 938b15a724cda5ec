"""A real Prefect server and a real process worker for tests, spoken to over HTTP and by Prefect's own command line."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil

from sparring.flows.run.prefect_server import free_port, server_process
from sparring.flows.supervise.processes import end, is_living
from tests.helpers.paths import ROOT
from tests.helpers.spar import MANY

PATIENCE = 120.0  # a run starts in five seconds on an idle machine


@dataclass
class Prefect:
    """A server with the deployments of this module, and a worker."""

    url: str
    folder: Path
    environment: dict[str, str]
    deployments: dict[str, str] = field(default_factory=dict)
    started: dict[str, str] = field(default_factory=dict)  # runs that each test need not wait for
    worker: "subprocess.Popen[bytes] | None" = None

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.url + path, data, {"Content-Type": "application/json"})
        for _ in range(10):
            try:
                with urlopen(request, timeout=60) as answer:
                    return json.loads(answer.read() or "null")
            except HTTPError as error:
                if error.code != 503:  # SQLite is locked for a moment: Prefect's own client asks again, too
                    raise
                time.sleep(1)
        raise AssertionError(f"{path}: the server is busy")

    def start(self, name: str) -> str:
        """Start a run of a deployment; returns its id."""
        return str(self.ask(f"/deployments/{self.deployments[name]}/create_flow_run", {})["id"])

    def run(self, id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask(f"/flow_runs/{id}")
        return found

    def runs_of(self, name: str) -> list[dict[str, Any]]:
        wanted = {"deployments": {"id": {"any_": [self.deployments[name]]}}, "sort": "START_TIME_ASC"}
        found: list[dict[str, Any]] = self.ask("/flow_runs/filter", wanted)
        return found

    def ended(self, id: str) -> dict[str, Any]:
        """The run, once it is over."""
        until(lambda: self.run(id)["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"))
        return self.run(id)

    def start_worker(self) -> None:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "gpu", "--name", "tested"]
        log = (self.folder / "worker.log").open("ab")
        self.worker = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, cwd=self.folder)

    def python(self, *arguments: object, given: str = "", cwd: Path | None = None) -> str:
        command = [sys.executable, *map(str, arguments)]
        run = subprocess.Popen(
            command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            text=True,
            cwd=cwd or self.folder,
            env=self.environment,
        )
        out, err = run.communicate(given, PATIENCE)
        assert run.returncode == 0, out + err
        return out

    def spar_many(self, commands: list[list[str]], cwd: Path) -> list[tuple[int, str, str]]:
        """Exit code, stdout and stderr of each command, all in one process."""
        given = json.dumps([(str(cwd), command) for command in commands])
        return [json.loads(line) for line in self.python("-c", MANY, given=given).splitlines()]


def until(happens: Callable[[], Any], patience: float = PATIENCE) -> Any:
    deadline = time.monotonic() + patience
    while not (found := happens()):
        assert time.monotonic() < deadline, f"waited {patience} s"
        time.sleep(0.2)
    return found


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@contextmanager
def prefect_at(folder: Path) -> Iterator[Prefect]:
    """A server of its own, quick to schedule; its worker, once started, is ended with it."""
    quick = {
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_SERVER_MEMO_STORE_PATH": str(folder / "memo_store.toml"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_WORKER_PREFETCH_SECONDS": "1",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_ENABLED": "false",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }
    with server_process(free_port(), quick) as wait:
        wait()
        found = Prefect(wait.url, folder, os.environ | quick | {"PREFECT_API_URL": wait.url})
        yield found
        if found.worker is not None:
            end_worker(found.worker)


def end_worker(worker: "subprocess.Popen[bytes]") -> None:
    left = psutil.Process(worker.pid).children(recursive=True)
    worker.terminate()
    try:
        worker.wait(15)
    except subprocess.TimeoutExpired:  # Prefect 3.7's worker now and then waits for itself
        worker.kill()
        worker.wait()
    end(lambda: filter(is_living, left))
