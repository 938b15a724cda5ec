"""Serve deployments on one machine: this process starts the runs, and a Prefect server when there is none.

The server keeps its records in Prefect's home, for the next time. Its page is on loopback.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

import psutil

from sparring.flows.deployment.deploy import Plan, answers, api_url, described, ensure_watch
from sparring.flows.run.prefect_server import free_port, server_process

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

Say = Callable[[str], None]

GRACE = 30.0  # seconds for a run to end


def serve_here(plans: Sequence[Plan], say: Say) -> None:
    """Serve one run at a time until Ctrl-C or SIGTERM, which end the current run and pause the schedules."""
    with server(say) as url:
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            ensure_watch(client)
        deployments = [described(plan) for plan in plans]
        for each in deployments:
            say(f"serving {each.full_name}; run it now: prefect deployment run {each.full_name}")
        asyncio.run(_serve(deployments, f"{url.removesuffix('/api')}/deployments", say))
        say("stopped; the schedules are paused until the next spar serve")


async def _serve(deployments: "Sequence[RunnerDeployment]", page: str, say: Say) -> None:
    from prefect.runner import Runner

    stopping = asyncio.Event()

    class Served(Runner):
        async def __aenter__(self) -> Self:
            started = await super().__aenter__()
            say(f"the page: {page}; stop with Ctrl-C")
            return started

        def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
            """Stop in order; Prefect's own handler exits within the event loop, with tracebacks."""
            loop.call_soon_threadsafe(stopping.set)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stopping.set)
    runner = Served(limit=1, pause_on_shutdown=True)
    for each in deployments:
        await runner.aadd_deployment(each)
    serving, stopped = asyncio.create_task(runner.start()), asyncio.create_task(stopping.wait())
    await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    await asyncio.to_thread(_end_runs)  # the runner would kill them at once
    serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving


def _end_runs() -> None:
    """Terminate the runs, with time for each to close its engine."""
    runs = [child for child in psutil.Process().children() if "prefect.engine" in child.cmdline()]
    for run in runs:
        run.terminate()
    psutil.wait_procs(runs, GRACE)


@contextmanager
def server(say: Say) -> Iterator[str]:
    """The URL of Prefect's API: the configured one, that of a server on Prefect's port, or that of a new server."""
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    if settings.api.url:
        yield api_url()
        return
    preferred = settings.server.api.port
    url = f"http://127.0.0.1:{preferred}/api"
    if answers(url):
        os.environ["PREFECT_API_URL"] = url
        refresh_global_settings_context()
        yield url
        return
    port = preferred if _free(preferred) else free_port()
    home = {"PREFECT_SERVER_API_HOST": "127.0.0.1", "PREFECT_SERVER_API_PORT": str(port)}
    say("starting a Prefect server with its records in Prefect's home (~/.prefect or PREFECT_HOME)")
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
