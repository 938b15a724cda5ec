"""`spar report`: runs as one page to read, or as numbers."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sparring.cli.common import Store, say
from sparring.store import DEFAULT_PATH


def register(app: typer.Typer) -> None:
    app.command()(report)


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Names or ids of runs to compare; the latest when none is given."),
    ] = None,
    store: Store = None,
    to: Annotated[Path | None, typer.Option(help="The page; report-<run id>.html when not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON, and write no page.")] = False,
    pairs: Annotated[int, typer.Option(min=0, help="Preference pairs to read, drawn over all rounds.")] = 12,
) -> None:
    """Write a page on a run: results with intervals, learning, judges, pairs to read. Several runs are compared."""
    from sparring.report import default_path, find_runs, report_data, write_report
    from sparring.store.store import DuckStore

    opened = DuckStore(store or DEFAULT_PATH)
    ids = find_runs(opened, runs or [])
    if as_json:
        print(json.dumps(report_data(opened, ids, pairs), ensure_ascii=False, indent=2))
        return
    print(write_report(opened, ids, to or default_path(ids), pairs))
    say("open it in a browser; it needs no network")
