"""`spar report`: runs as one page, or as numbers."""

from pathlib import Path
from typing import Annotated

import typer

from sparring.cli.common import Store, open_store, print_json, say


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Names or ids of runs to compare; the latest run by default."),
    ] = None,
    store: Store = None,
    to: Annotated[Path | None, typer.Option(help="File of the page; report-<run id>.html by default.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the numbers as JSON instead of writing a page.")
    ] = False,
    pairs: Annotated[int, typer.Option(min=0, help="Number of preference pairs to show, drawn from all rounds.")] = 12,
) -> None:
    """Write a page about a run, or a comparison of several: results with intervals, learning, judges, pairs."""
    from sparring.report import default_path, find_runs, report_data, write_report

    opened = open_store(store)
    ids = find_runs(opened, runs or [])
    if as_json:
        print_json(report_data(opened, ids, pairs))
        return
    print(write_report(opened, ids, to or default_path(ids), pairs))
    say("open it in a browser; it needs no network")
