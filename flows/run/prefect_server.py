"""A temporary Prefect server on this machine, for when none is configured."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from sparring.loop.errors import EnvironmentProblem

# Set before prefect is imported, unless the user has set them.
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",  # the command line prints each error once
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
}
MEMORY = "sqlite+aiosqlite:///file::memory:?cache=shared&uri=true&check_same_thread=false"
PATIENCE = 180.0


@contextmanager
def quiet_server() -> Iterator["Ready"]:
    """`api_server`, with Prefect's own logging off unless the user has turned it on."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with api_server() as wait:
        yield wait


@contextmanager
def api_server() -> Iterator["Ready"]:
    """Yields a function that waits until Prefect answers, at PREFECT_API_URL or on a server of this process.

    That server keeps its records in memory: the store remembers a run, and two runs never wait for one database.
    """
    if os.environ.get("PREFECT_API_URL"):
        yield Ready(os.environ["PREFECT_API_URL"], None)
        return
    port = free_port()
    with server_process(port, {"PREFECT_API_DATABASE_CONNECTION_URL": MEMORY, "PREFECT_UI_ENABLED": "false"}) as wait:
        os.environ["PREFECT_API_URL"] = wait.url
        try:
            yield wait
        finally:
            del os.environ["PREFECT_API_URL"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def server_process(port: int, settings: dict[str, str]) -> Iterator["Ready"]:
    """A Prefect server on loopback, until the block ends or this process dies."""
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--log-level", "critical", "--lifespan", "on"],
        env=os.environ | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # without Ctrl-C, as the flow still reports its end
        preexec_fn=_die_with_parent,
    )
    try:
        yield Ready(f"http://127.0.0.1:{port}/api", process)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Ready:
    """A server; call it to wait until it answers."""

    def __init__(self, url: str, process: "subprocess.Popen[bytes] | None") -> None:
        self.url, self.process = url, process

    def __call__(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).read()
                return
            except (urllib.error.URLError, OSError) as error:
                dead = self.process is not None and self.process.poll() is not None
                if dead or time.monotonic() > deadline:
                    raise EnvironmentProblem(
                        f"no Prefect server answers at {self.url} ({error}); start one and set PREFECT_API_URL, or run "
                        "with --no-prefect"
                    ) from error
                time.sleep(0.2)


def _die_with_parent() -> None:
    """Make even a SIGKILL of the parent leave no server behind (Linux)."""
    if sys.platform == "linux":
        import ctypes

        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
