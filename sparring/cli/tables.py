"""The table of rounds, and any rows as a table, CSV, JSON or JSON lines."""

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any

from sparring.cli.common import Format
from sparring.loop import formatting
from sparring.loop.formatting import decimals

if TYPE_CHECKING:
    from rich.table import Table


KL = "KL: from the initial policy at temperature 1, in nats summed along an answer as it was sampled"


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
        f"loss {decimals(row['loss'])}; {measured}; win rate {interval(row, 'win_rate')}; {gate}"
    )


def print_rounds(run: str, rounds: Iterable[dict[str, Any]]) -> None:
    """Print rows of round_summary as the table at the end of a run, on stdout."""
    from rich.console import Console
    from rich.table import Table

    title = f"{run}: held-out results by round (95 % intervals)"
    table = Table(title=title, title_justify="left", caption=KL, caption_justify="left")
    for name in ("round", "pairs", "loss", "accuracy", "pass rate", "win rate", "KL", "tokens", "gate"):
        table.add_column(name, justify="left" if name in ("pass rate", "win rate", "gate") else "right")
    for row in rounds:
        table.add_row(
            str(row["round"]),
            f"{row['examples']} answers" if row["examples"] else "-" if row["pairs"] is None else str(row["pairs"]),
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


def print_rows(rows: Sequence[dict[str, Any]], columns: Sequence[str] = (), format: Format = "table") -> None:
    """Print rows on stdout; all columns of the first row by default, and nothing when there is no column."""
    columns = columns or list(rows[0] if rows else ())
    if format == "json":
        print(json.dumps(rows, ensure_ascii=False, indent=2, default=plain))
    elif format == "jsonl":
        for row in rows:
            print(json.dumps(row, ensure_ascii=False, default=plain))
    elif format == "csv":
        writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _nested(value) for name, value in row.items()} for row in rows)
    elif columns:
        print_table(as_table(rows, columns))


def plain(value: Any) -> Any:
    """A value as JSON takes it: a Decimal, which SQL sums give, is a number; dates are text."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return str(value)


def _nested(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, default=plain) if isinstance(value, list | dict) else value


def print_table(table: "Table", out: IO[str] | None = None, *, paged: bool = False) -> None:
    """Print a table on stdout or `out`; `paged`: in the pager, at a terminal with fewer lines than the table."""
    from rich.console import Console

    console = Console(highlight=False, file=out)
    # A truncated id is useless, so lines in a pipe are as long as they need to be.
    if not console.is_terminal:
        Console(highlight=False, file=out, width=10_000).print(table)
    elif paged and table.row_count + 4 > console.height:
        with console.pager():
            console.print(table)
    else:
        console.print(table)


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
