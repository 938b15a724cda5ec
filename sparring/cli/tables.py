"""The table of rounds, and any rows as a table, CSV, JSON or JSON lines."""

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sparring.cli.common import Format
from sparring.flows.run.standing import summaries
from sparring.loop import formatting
from sparring.loop.formatting import decimals
from sparring.store.store import DuckStore

if TYPE_CHECKING:
    from rich.table import Table


def interval(row: dict[str, Any], metric: str) -> str:
    """pass_rate or win_rate of a row of round_summary, with its interval."""
    short = metric.removesuffix("_rate")
    return formatting.interval(row[metric], row[f"{short}_low"], row[f"{short}_high"])


def round_line(row: dict[str, Any]) -> str:
    measured = f"pass rate {interval(row, 'pass_rate')}"
    if row["round"] == 0:
        return f"round 0: initial policy, {measured}"
    why = f"{row['ties']} ties, {row['identical']} identical, {row['abstained']} abstained, {row['failed']} failed"
    why += f", {row['filtered']} filtered" if row["filtered"] else ""
    gate = "accepted" if row["accepted"] else f"REJECTED, kept as {row['candidate_id']}"
    return (
        f"round {row['round']}: {row['prompts']} prompts = {row['paired']} paired + {why}; "
        f"loss {decimals(row['loss'])}; {measured}; "
        f"win rate {interval(row, 'win_rate')}; {gate}"
    )


def _learned_from(row: dict[str, Any]) -> str:
    """The number of pairs, or of single answers where the loss learns from those."""
    if row["examples"]:
        return f"{row['examples']} answers"
    return "-" if row["pairs"] is None else str(row["pairs"])


def print_rounds(store: DuckStore, run: str) -> None:
    """Print the table at the end of a run on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{run}: held-out results by round (95 % intervals)", title_justify="left")
    for name in ("round", "pairs", "loss", "accuracy", "pass rate", "win rate", "KL", "tokens", "gate"):
        table.add_column(
            name, justify="right" if name in ("round", "pairs", "loss", "accuracy", "KL", "tokens") else "left"
        )
    for row in summaries(store, run):
        table.add_row(
            str(row["round"]),
            _learned_from(row),
            decimals(row["loss"]),
            decimals(row["accuracy"], 2),
            interval(row, "pass_rate"),
            interval(row, "win_rate") if row["round"] else "-",
            decimals(row["kl"], 2),
            decimals(row["eval_tokens"], 1),
            "initial" if row["round"] == 0 else "accepted" if row["accepted"] else "rejected",
        )
    console = Console(highlight=False)
    console.width = max(console.width, 110) if not console.is_terminal else console.width
    console.print(table)


def print_rows(rows: list[dict[str, Any]], columns: list[str], format: Format) -> None:
    if format == "json":
        print(json.dumps(rows, ensure_ascii=False, indent=2, default=plain))
    elif format == "jsonl":
        for row in rows:
            print(json.dumps(row, ensure_ascii=False, default=plain))
    elif format == "csv":
        writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _nested(value) for name, value in row.items()} for row in rows)
    else:
        _print_table(rows, columns)


def plain(value: Any) -> Any:
    """A value as JSON takes it: a Decimal, which SQL sums give, is a number; dates are text."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return str(value)


def _nested(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, default=plain) if isinstance(value, list | dict) else value


def _print_table(rows: list[dict[str, Any]], columns: list[str]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    Console(highlight=False, width=None if console.is_terminal else 10_000).print(as_table(rows, columns))


def as_table(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> "Table":
    """A table for rich. Cells wrap, because a truncated id is useless."""
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(*(Column(name, overflow="fold") for name in columns))
    for row in rows:
        table.add_row(*(Text(_cell(row[c])) for c in columns))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
