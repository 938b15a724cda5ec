"""`spar export` and `spar import`: rows of the store to and from files that datasets and trainers read."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Literal

import typer

from sparring.cli.common import AsJson, OfRun, Store, open_store, print_json, say
from sparring.loop.errors import ConfigError

KINDS = "pairs: chosen, rejected. groups: answers, scores. labels: answer, label. comparisons: pairs and ties."


def export(
    what: Annotated[Literal["pairs", "groups", "labels", "comparisons"], typer.Argument(help=KINDS)],
    to: Annotated[str, typer.Option(help="X.parquet, X.jsonl, or a folder with a dataset card.")],
    run: OfRun = None,
    split: Annotated[Literal["train", "eval"], typer.Option(help="Which prompts.")] = "train",
    style: Annotated[Literal["trl", "openrlhf", "axolotl"], typer.Option(help="Whose column names.")] = "trl",
    text: Annotated[Literal["chat", "plain"], typer.Option(help="Messages with roles, or plain texts.")] = "chat",
    judge: Annotated[str | None, typer.Option(help="Whose scores; the mean over all judges by default.")] = None,
    at: Annotated[float | None, typer.Option(help="labels: the lowest mean score of a good answer.")] = None,
    store: Store = None,
) -> None:
    """Write preferences, scores or labels to files that TRL, OpenRLHF, axolotl and datasets read."""
    from sparring.store.exchange import Wanted, export

    done = export(open_store(store), Wanted(what, to, run, split, style, text, judge, at))
    left_out = f", {done.left_out} answers without a score were left out" if done.left_out else ""
    say(f"{done.rows} {what} written to {to}{left_out}")


def import_(
    files: Annotated[
        list[str],
        typer.Argument(help=".jsonl, .parquet or .csv files, a dataset's folder, or a hub id, org/name[:split]."),
    ],
    source: Annotated[str, typer.Option(help="Name of the source; the judge of its labels is import:SOURCE.")],
    licence: Annotated[str, typer.Option(help="The licence, e.g. MIT; 'unknown' if there is none.")],
    run: Annotated[
        str | None, typer.Option(help="Name of the run that holds them; the source's name by default.")
    ] = None,
    split: Annotated[
        Literal["train", "eval"], typer.Option(help="eval: held-out prompts, which nothing learns from.")
    ] = "train",
    origin: Annotated[
        Literal["dataset", "human"], typer.Option(help="Who wrote the answers: models of any kind, or people.")
    ] = "dataset",
    columns: Annotated[
        str | None, typer.Option(help="Column names in the files: prompt=instruction,chosen=best,...")
    ] = None,
    refused: Annotated[
        str | None,
        typer.Option(help="Write rows that cannot be read to this file, as JSON lines, and import the others."),
    ] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Add pairs, comparisons, groups, labels or answers from files to the store; a second import adds nothing."""
    from sparring.store.exchange import Asked, import_rows

    asked = Asked(tuple(files), source, licence, run, split, origin, _named(columns), refused)
    done = import_rows(open_store(store), asked)
    if as_json:
        print_json(asdict(done))
        return
    counts = {name: n for name, n in asdict(done).items() if isinstance(n, int) and n and name != "added"}
    text = ", ".join(f"{n} {name}" for name, n in counts.items())
    say(f"{done.run_id}: {text}; " + (f"{done.added} rows of the store are new" if done.added else "nothing is new"))


def _named(columns: str | None) -> Mapping[str, str]:
    pairs = [each.partition("=") for each in columns.split(",")] if columns else []
    wrong = [column for column, equals, name in pairs if not (column.strip() and equals and name.strip())]
    if wrong:
        raise ConfigError(f"--columns is {columns!r}; expected COLUMN=NAME,..., e.g. prompt=instruction,chosen=best")
    return {column.strip(): name.strip() for column, _, name in pairs}
