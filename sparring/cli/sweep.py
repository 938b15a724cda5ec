"""`spar run CONFIG --sweep FILE`, and the comparison of its runs: a table for people, rows for programs."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparring.cli.common import Format, say
from sparring.cli.tables import print_rows, print_table
from sparring.loop.errors import StepError
from sparring.loop.formatting import decimals, interval

if TYPE_CHECKING:
    from sparring.sweeps.plan import Plan, Point

# title: metric, prefix of its bounds, digits
INTERVALS = {
    "pass rate": ("pass_rate", "pass", 3),
    "win rate": ("win_rate", "win", 3),
    "KL": ("kl", "kl", 2),
    "tokens": ("mean_tokens", "tokens", 1),
    "mean score": ("mean_score", "score", 3),
}


def run_sweep(
    config: Path, file: Path, overrides: Sequence[str], *, dry_run: bool, no_prefect: bool, format: Format
) -> None:
    """Play the runs of a sweep, and print how they compare. Raises StepError at the end when some failed."""
    from sparring.sweeps.plan import plan_sweep

    plan = plan_sweep(config, file, overrides)
    missing = [point for point in plan.points if not plan.store.complete(point.run, point.config.rounds)]
    say(f"{file}: {len(plan.points)} runs in {plan.store.db.path}, {len(missing)} to play")
    failed = _play(plan, missing, no_prefect) if missing and not dry_run else {}
    _print(_rows(plan), plan.axes, format)
    if failed:
        raise StepError(
            f"{len(failed)} of {len(plan.points)} runs failed; the same command plays what is missing\n"
            + "\n".join(f"  {name}: {why}" for name, why in failed.items())
        )


def _play(plan: "Plan", missing: "Sequence[Point]", no_prefect: bool) -> dict[str, str]:
    from sparring.flows.run.prefect_server import quiet_server
    from sparring.flows.supervise.guard import Guard
    from sparring.sweeps.play import play_apart, play_points

    def play(point: "Point") -> str | None:
        say(f"{missing.index(point) + 1} of {len(missing)}: {point.name}")
        why = play_apart(point, plan.store, no_prefect)
        if why is not None:
            say(f"{point.name} failed: {why}")
        return why

    with Guard(), ExitStack() as held:
        if not no_prefect:
            held.enter_context(quiet_server())  # one server for all runs
        return play_points(missing, plan.store, play)


def _rows(plan: "Plan") -> list[dict[str, Any]]:
    """One row per run, in the order of the file; unknown values are None."""
    from sparring.sweeps.comparison import COLUMNS, results

    by_run = results(plan.store, [point.run for point in plan.points])
    rows = []
    for point in plan.points:
        labels = {axis: point.labels.get(axis, "") for axis in plan.axes}
        values = by_run.get(point.run, {}) | {"run_id": point.run, "wanted": point.config.rounds}
        rows.append({"point": point.name, **labels, **{name: values.get(name) for name in COLUMNS[1:]}})
    return rows


def _print(rows: Sequence[dict[str, Any]], axes: Sequence[str], format: Format) -> None:
    if format != "table":
        print_rows(rows, format=format)
        return
    from rich.table import Column, Table
    from rich.text import Text

    titles = ("point", *axes, "rounds", "policy", *INTERVALS, "pairs", "examples", "seconds")
    title = "the policy that each run ended with, on held-out prompts (95 % intervals)"
    table = Table(*(Column(each, overflow="fold") for each in titles), title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(Text, _cells(row, axes)))
    print_table(table)


def _cells(row: dict[str, Any], axes: Sequence[str]) -> list[str]:
    done = "-" if row["rounds"] is None else f"{row['rounds']} of {row['wanted']}"
    policy = "-" if row["round"] is None else f"round {row['round']}" if row["round"] else "initial"
    intervals = (_interval(row, *how) for how in INTERVALS.values())
    counts = ("-" if row[name] is None else str(row[name]) for name in ("pairs", "examples"))
    return [row["point"], *(row[axis] for axis in axes), done, policy, *intervals, *counts, decimals(row["seconds"], 1)]


def _interval(row: dict[str, Any], metric: str, bound: str, digits: int) -> str:
    return interval(row[metric], row[f"{bound}_low"], row[f"{bound}_high"], lambda value: decimals(value, digits))
