"""Shared parts of figures: points with intervals, lines between policies, axes, limits and legends."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from math import ceil, nan
from typing import Any, Self

from sparring.loop.formatting import cut
from sparring.report.numbers import Row
from sparring.report.svg import GREY, Look, ticks
from sparring.report.text import interval, visible

Side = tuple[float, float]  # distances from a value to the ends of its interval


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    x_sides: Side = (nan, nan)
    y_sides: Side = (nan, nan)

    @classmethod
    def of(cls, row: Row, *, x: float | None = None, across: Row | None = None) -> Self:
        """The value of `row` at `x`, or at the value of another row, with their intervals."""
        if across is None:
            return cls(nan if x is None else x, _value(row), y_sides=_sides(row))
        return cls(_value(across), _value(row), _sides(across), _sides(row))


def _value(row: Row) -> float:
    return nan if row["value"] is None else float(row["value"])


def _sides(row: Row) -> Side:
    if row["value"] is None or row["low"] is None or row["high"] is None:
        return nan, nan
    return max(0.0, row["value"] - row["low"]), max(0.0, row["high"] - row["value"])


def beside(rows: Sequence[Row], run: int, runs: int) -> dict[int, Point]:
    """Points by round, shifted a little so that the intervals of several runs do not overlap."""
    shift = 0.08 * (run - (runs - 1) / 2)
    return {row["round"]: Point.of(row, x=row["round"] + shift) for row in rows}


def optimize(axis: Any, run: Row, points: Mapping[int, Point], look: Look, label: str) -> None:
    """Draw points by round, with a line from the round whose policy each started from; rejected ones are open."""
    if not points:
        return
    rounds = [row for row in run["rounds"] if row["round"] in points]
    moves = [(points[r["from_round"]], points[r["round"]]) for r in rounds if r["round"] and r["from_round"] in points]
    x = [value for start, end in moves for value in (start.x, end.x, nan)]
    y = [value for start, end in moves for value in (start.y, end.y, nan)]
    axis.plot(x, y, look.line, color=look.colour)
    mark(axis, points, look, label, {row["round"] for row in rounds if row["accepted"] is False})


def mark(axis: Any, points: Mapping[int, Point], look: Look, label: str, rejected: Set[int] = frozenset()) -> None:
    """Draw points with their intervals."""
    at = points.values()
    x_error = list(zip(*(p.x_sides for p in at), strict=True)) or None
    y_error = list(zip(*(p.y_sides for p in at), strict=True)) or None
    style: dict[str, Any] = {"fmt": "none", "ecolor": look.colour, "elinewidth": 0.8, "capthick": 0.8}
    axis.errorbar([p.x for p in at], [p.y for p in at], y_error, x_error, **style)
    for open_, fill in ((False, look.colour), (True, "white")):
        some = [point for round, point in points.items() if (round in rejected) == open_]
        style = {"color": look.colour, "markerfacecolor": fill, "zorder": 3, "label": None if open_ else label}
        axis.plot([p.x for p in some], [p.y for p in some], look.marker, **style)


def labels(report: Row) -> list[str]:
    """A short label per run: its name, or its id when two runs share a name."""
    names = [run["name"] for run in report["runs"]]
    chosen = [run["name"] if names.count(run["name"]) == 1 else run["run_id"] for run in report["runs"]]
    return [cut(visible(name), 24) for name in chosen]


def legend(figure: Any, axis: Any, report: Row) -> None:
    """Add a legend when there are several runs."""
    if len(report["runs"]) > 1:
        handles, names = axis.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=2)
        grow(figure, len(names) / 2)


def grow(figure: Any, lines: float) -> None:
    """Make room for the lines of a legend after the first."""
    figure.set_figheight(figure.get_figheight() + 0.15 * max(0, ceil(lines) - 1))


def share_axis(axis: Any) -> None:
    """Show shares as percentages on an axis that stays within 0 and 100 %."""
    low, high = axis.get_ylim()
    axis.set_ylim(max(low, -0.03), min(high, 1.03))
    axis.yaxis.set_major_formatter(as_percent)


def as_percent(value: float, place: int | None = None) -> str:
    return f"{100 * value:.4g} %"


def step_axis(axis: Any, x: str, y: str) -> None:
    axis.xaxis.set_major_locator(ticks(7, integer=True))
    axis.set(xlabel=x, ylabel=y)


def bar_axis(axis: Any, rounds: Sequence[int]) -> None:
    """Set limits for one bar per round, from zero; a single bar does not fill the whole width."""
    axis.grid(axis="x", visible=False)
    axis.set_xlim(min(rounds) - 0.7, max(rounds) + 0.7)
    axis.set_ylim(0, axis.get_ylim()[1])


def round_axis(axis: Any, by_run: Sequence[Sequence[Row]], y: str) -> None:
    rounds = [row["round"] for rows in by_run for row in rows]
    axis.set_xlim(min(rounds) - 0.4, max(rounds) + 0.4)
    step_axis(axis, "round", y)


def counts(by_run: Sequence[Sequence[Row]]) -> list[int]:
    return [row["n"] for rows in by_run for row in rows]


def bounds(report: Row, section: str, key: str) -> list[float]:
    """The distinct values of an option in the configs of the runs."""
    values = [(run["config"].get(section) or {}).get(key) for run in report["runs"]]
    return sorted({float(value) for value in values if value is not None})


def limit(axis: Any, *, label: str, x: float | None = None, y: float | None = None, line: str = "--") -> None:
    """Draw a line with a label at its end."""
    look = {"color": GREY, "linewidth": 0.9, "linestyle": line, "zorder": 1}
    text = {"textcoords": "offset points", "color": GREY, "fontsize": 7.5}
    if y is not None:
        axis.axhline(y, **look)
        axis.annotate(label, (1, y), (0, 2), xycoords=("axes fraction", "data"), ha="right", **text)
    if x is not None:
        axis.axvline(x, **look)
        axis.annotate(label, (x, 1), (2, -7), xycoords=("data", "axes fraction"), **text)


def say_values(title: str, report: Row, by_run: Sequence[Sequence[Row]], unit: str) -> str:
    """Text for screen readers: the first and the last value of each run."""
    parts = []
    for name, rows in zip(labels(report), by_run, strict=True):
        if rows:
            ends = rows[:1] if len(rows) == 1 else (rows[0], rows[-1])
            parts.append(f"{name}: " + ", ".join(f"round {row['round']} {interval(row, unit)}" for row in ends))
    return f"{title}. {'; '.join(parts)}"
