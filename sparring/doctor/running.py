"""Checks of Prefect and of processes that outlived their run."""

import json
import os
import re
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import urlsplit

import psutil

from sparring.flows.supervise.crash_report import ask
from sparring.flows.supervise.processes import describe, end, guarded_by, is_living, orphans
from sparring.store.maintenance.finding import Finding

FLOWS = ("self-play", "reward-model", "evaluate", "label")
ENV = "PREFECT__FLOW_RUN_ID"  # in the environment of processes that a Prefect worker starts


def examine(kill_orphans: bool) -> list[Finding]:
    return [*prefect(os.environ.get("PREFECT_API_URL")), left_over(orphans(), kill_orphans)]


def prefect(url: str | None) -> list[Finding]:
    if not url:
        return [Finding("prefect server", True, "PREFECT_API_URL is not set, so each run starts a temporary one")]
    try:
        theirs = str(ask(f"{url.rstrip('/')}/admin/version"))
        running = ask(f"{url.rstrip('/')}/flow_runs/filter", _live_ones()) if _is_here(url) else []
    except (OSError, ValueError) as error:
        remedy = "start it (prefect server start), or unset PREFECT_API_URL"
        return [Finding("prefect server", False, f"none answers at {url} ({error})", remedy)]
    try:
        ours = version("prefect")
    except PackageNotFoundError:
        return []
    fits = _numbers(ours) <= _numbers(theirs)
    remedy = f"a server must not be older than its clients: pip install 'prefect>={ours}' there"
    return [Finding("prefect server", fits, f"{theirs} at {url}, {ours} here", remedy), *_zombies(running)]


def _live_ones() -> dict[str, Any]:
    state = {"type": {"any_": ["RUNNING", "CANCELLING"]}}
    return {"flow_runs": {"state": state}, "flows": {"name": {"any_": list(FLOWS)}}}


def _is_here(url: str) -> bool:
    """Whether the server is on this machine; with another one, its runs may be elsewhere too."""
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:3]))


def _zombies(running: list[dict[str, Any]]) -> list[Finding]:
    """Flow runs that the server takes for Running and that no process here plays."""
    here = _flow_runs_here()
    remedy = "unless another machine plays it: prefect flow-run cancel {id}, then spar resume"
    return [
        Finding("prefect run", False, f"{run['name']} is Running, and no process here plays it", remedy.format(**run))
        for run in running
        if run["id"] not in here
    ]


def _flow_runs_here() -> set[str]:
    ids = set()
    for process in psutil.process_iter():
        try:
            ids.add(process.environ().get(ENV, ""))
        except (psutil.Error, OSError):
            continue  # ended meanwhile, or belongs to another user
        if settings := guarded_by(process):
            ids.add((json.loads(settings)[3] or ["", ""])[1])
    return ids


def left_over(processes: list[psutil.Process], kill: bool) -> Finding:
    listed = ", ".join(map(describe, processes))
    if not processes:
        return Finding("orphans", True, "none")
    if not kill:
        return Finding("orphans", False, f"{len(processes)} outlived their run: {listed}", "spar doctor --kill-orphans")
    left = end(lambda: filter(is_living, processes))
    if left:
        text = f"{len(left)} cannot be ended: {', '.join(map(describe, left))}"
        return Finding("orphans", False, text, "they wait for a driver; restart the machine")
    return Finding("orphans", True, f"{len(processes)} outlived their run and were ended: {listed}")
