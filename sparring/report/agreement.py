"""Figures on the judges: how often two agree, and how often the order of the answers decides."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from sparring.loop.formatting import cut, percent
from sparring.report.drawing import as_percent, labels
from sparring.report.numbers import Row
from sparring.report.svg import COLOURS, SIZE, Look, Plot, panels, svg
from sparring.report.text import counted, visible

LOOKS = ((-0.12, Look(COLOURS[0], "o")), (0.12, Look(COLOURS[1], "s")))  # of the two dots of a line, and their shifts


def agreement(report: Row) -> Plot:
    id, title = "agreement", "Agreement between judges"
    rows = [(index, row) for index, run in enumerate(report["runs"]) for row in run["agreement"]]
    if not rows:
        return Plot(id, title, "No two judges have judged the same two answers.")
    names = [_named(report, index, f"{_short(row['judge'])} / {_short(row['other_judge'])}") for index, row in rows]
    figure = _dots(names, [row for _, row in rows], {"agreed": "same winner", "opposed": "opposite winners"})
    n = counted([row["duels"] for _, row in rows], "duels")
    says = "How often two judges name the same winner (or both a tie), and how often opposite ones"
    shares = "; ".join(f"{name}: {percent(row['agreed']['value'])}" for name, (_, row) in zip(names, rows, strict=True))
    return Plot(id, title, f"{says}, with 95 % intervals; {n}.", svg(figure, id, f"{title}. {shares}"))


def position(report: Row) -> Plot:
    id, title = "position-bias", "Position bias"
    rows = [(index, row) for index, run in enumerate(report["runs"]) for row in run["position"]]
    if not rows:
        return Plot(id, title, "No judge has seen two answers in both orders.")
    names = [_named(report, index, _short(row["judge"])) for index, row in rows]
    wins = {"both_first": "first one wins both times", "both_second": "second one wins both times"}
    figure = _dots(names, [row for _, row in rows], wins)
    n = counted([row["duels"] for _, row in rows], "duels in both orders")
    caption = f"How often a judge names another winner when two answers swap places, with 95 % intervals; {n}."
    shares = "; ".join(
        f"{name}: first {percent(row['both_first']['value'])}, second {percent(row['both_second']['value'])}"
        for name, (_, row) in zip(names, rows, strict=True)
    )
    return Plot(id, title, caption, svg(figure, id, f"{title}. {shares}"))


def _dots(names: Sequence[str], rows: Sequence[Row], labels: Mapping[str, str]) -> Figure:
    """One line per name from top to bottom, with a dot for each of the two labelled shares of its row."""
    figure, (axis,) = panels(height=max(SIZE[1], 0.9 + 0.3 * len(names)))
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    for place, row in enumerate(rows):
        for (shift, look), (key, label) in zip(LOOKS, labels.items(), strict=True):
            share, style = row[key], {"fmt": look.marker, "color": look.colour, "elinewidth": 0.8}
            reach = [[share["value"] - share["low"]], [share["high"] - share["value"]]]
            axis.errorbar(share["value"], place + shift, xerr=reach, label=None if place else label, **style)
    axis.set_xlim(-0.03, 1.03)
    axis.xaxis.set_major_formatter(as_percent)
    axis.set_xlabel("share of duels")
    figure.legend(loc="outside upper left", ncols=1)
    return figure


def _named(report: Row, index: int, name: str) -> str:
    return name if len(report["runs"]) == 1 else f"{cut(labels(report)[index], 14)}: {name}"


def _short(judge: str) -> str:
    """A judge's name with only the first digits of the hash at its end."""
    kind, dash, digest = visible(judge).rpartition("-")
    return cut(f"{kind}{dash}{digest[:4]}" if dash and len(digest) >= 16 else visible(judge), 18)
