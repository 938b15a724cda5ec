"""The comparison of a sweep, as a table for people or as rows for programs."""

from collections.abc import Sequence
from typing import Any

from sparring.cli.common import Format
from sparring.cli.tables import print_rows
from sparring.loop.formatting import decimals, interval

# title: metric, prefix of its bounds, digits
INTERVALS = {
    "pass rate": ("pass_rate", "pass", 3),
    "win rate": ("win_rate", "win", 3),
    "KL": ("kl", "kl", 2),
    "tokens": ("mean_tokens", "tokens", 1),
    "mean score": ("mean_score", "score", 3),
}


def print_comparison(rows: Sequence[dict[str, Any]], axes: Sequence[str], format: Format) -> None:
    """Print one row per run on stdout."""
    if format != "table":
        print_rows(list(rows), list(rows[0]), format)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title="the policy that each run ended with, on held-out prompts (95 % intervals)")
    table.title_justify = "left"
    for title in ("point", *axes, "rounds", "policy", *INTERVALS, "pairs", "examples", "seconds"):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, _cells(row, axes)))
    console = Console(highlight=False)
    Console(highlight=False, width=None if console.is_terminal else 10_000).print(table)


def _cells(row: dict[str, Any], axes: Sequence[str]) -> list[str]:
    done = "-" if row["rounds"] is None else f"{row['rounds']} of {row['wanted']}"
    policy = "-" if row["round"] is None else f"round {row['round']}" if row["round"] else "initial"
    intervals = (_interval(row, *how) for how in INTERVALS.values())
    counts = ("-" if row[name] is None else str(row[name]) for name in ("pairs", "examples"))
    return [row["point"], *(row[axis] for axis in axes), done, policy, *intervals, *counts, decimals(row["seconds"], 1)]


def _interval(row: dict[str, Any], metric: str, bound: str, digits: int) -> str:
    return interval(row[metric], row[f"{bound}_low"], row[f"{bound}_high"], lambda value: decimals(value, digits))
