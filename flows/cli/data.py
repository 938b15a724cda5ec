"""`spar export`: what the store holds, as files that datasets and TRL read."""

from typing import Annotated, Literal

import typer

from flows.cli.common import STORE, Store, complete_run, say


def register(app: typer.Typer) -> None:
    app.command()(export)


def export(
    what: Annotated[Literal["pairs"], typer.Argument(help="pairs: prompt, chosen, rejected.")],
    to: Annotated[str, typer.Option(help="X.parquet, X.jsonl, or a folder (a saved dataset).")],
    run: Annotated[
        str | None, typer.Option(help="Name or id of a run; every run when not given.", autocompletion=complete_run)
    ] = None,
    store: Store = None,
) -> None:
    """Write the preference pairs of a run to a file."""
    from store.files import export_pairs
    from store.store import DuckStore

    n = export_pairs(DuckStore(store or STORE), run, to)
    say(f"{n} pairs written to {to}")
