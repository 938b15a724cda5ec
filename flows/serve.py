"""Serve deployments on one machine: this process starts the runs, and the Prefect server too when there is none.

The server keeps its records in Prefect's home, so that they are there the next time; its page is on loopback.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from flows.cli.common import say
from flows.deploy import Plan, answers, api_url, described, ensure_watch
from flows.prefect_run import free_port, server_process


def serve_here(plans: Sequence[Plan]) -> None:
    """Serve until Ctrl-C or SIGTERM: one run at a time. A run in flight is ended then, and schedules are paused."""
    with server() as url:
        from prefect.client.orchestration import get_client
        from prefect.runner import Runner

        class Served(Runner):
            async def __aenter__(self) -> Self:
                started = await super().__aenter__()
                say(f"the page: {url.removesuffix('/api')}/deployments; stop with Ctrl-C")
                return started

            def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
                """As Ctrl-C does it. Prefect's own handler exits within the event loop, which leaves tracebacks."""
                signal.raise_signal(signal.SIGINT)

        with get_client(sync_client=True) as client:
            ensure_watch(client)
        runner = Served(limit=1, pause_on_shutdown=True)
        for plan in plans:
            deployment = described(plan)
            runner.add_deployment(deployment)
            say(f"serving {deployment.full_name}; run it now: prefect deployment run {deployment.full_name}")
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
        try:
            asyncio.run(runner.start())
        except KeyboardInterrupt:
            say("stopped; the schedules are paused until it is served again")


@contextmanager
def server() -> Iterator[str]:
    """The URL of the API: of PREFECT_API_URL or Prefect's profile, of a server on Prefect's port, or of our own."""
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    if settings.api.url:
        yield api_url()
        return
    wanted = settings.server.api.port
    url = f"http://127.0.0.1:{wanted}/api"
    if answers(url):
        os.environ["PREFECT_API_URL"] = url
        refresh_global_settings_context()
        yield url
        return
    port = wanted if _free(wanted) else free_port()
    home = {"PREFECT_SERVER_API_HOST": "127.0.0.1", "PREFECT_SERVER_API_PORT": str(port)}
    say("starting a Prefect server; its records are in Prefect's home, ~/.prefect or PREFECT_HOME")
    with server_process(port, home) as wait:
        wait()
        os.environ["PREFECT_API_URL"] = wait.url
        refresh_global_settings_context()
        yield wait.url


def _free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
