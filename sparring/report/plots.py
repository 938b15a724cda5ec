"""The figures of a report, by section. Each is a function of the report's data."""

from collections.abc import Callable, Sequence
from typing import Any

from sparring.loop.evaluator import wilson
from sparring.report import agreement as judging
from sparring.report import curves, drawing, heldout
from sparring.report.numbers import Row
from sparring.report.svg import COLOURS, Plot, look, panels, styled, svg, ticks
from sparring.report.text import counted

OUTCOMES = {
    "paired": COLOURS[0],
    "tie": COLOURS[4],
    "identical": COLOURS[5],
    "abstained": COLOURS[3],
    "filtered": COLOURS[2],
    "failed": COLOURS[1],
}
BARS: dict[str, Any] = {"edgecolor": "white", "linewidth": 0.5}


def sections(report: Row) -> dict[str, list[Plot]]:
    """All figures, by the heading of their section."""
    drawn: dict[str, list[Callable[[Row], Plot]]] = {
        "Held-out results": [heldout.pass_rate, heldout.win_rate, heldout.reward_against_kl, heldout.length],
        "Prompts and pairs": [outcomes, learning_time],
        "Learning": _learning(report),
        "Judges": [judging.agreement, judging.position],
    }
    # What is no loop was measured once, with other metrics, which a table shows.
    if all(run["kind"] != "self-play" for run in report["runs"]):
        drawn = {"Held-out results": []}
        if any(run["updates"] for run in report["runs"]):
            drawn["Learning"] = [curves.loss, curves.accuracy, curves.rewards, curves.gradient, learning_time]
    with styled():
        return {heading: [draw(report) for draw in plots] for heading, plots in drawn.items()}


def _learning(report: Row) -> list[Callable[[Row], Plot]]:
    """The figures on learning: pairs have chosen and rejected answers, a policy gradient has ratios."""
    of_pairs = [curves.accuracy, curves.rewards, curves.logps]
    drawn = of_pairs if curves.has(report, "accuracy") else []
    drawn = [*drawn, curves.clipping] if curves.has(report, "ratio") else drawn or of_pairs
    return [curves.loss, *drawn, curves.kl, curves.gradient]


def outcomes(report: Row) -> Plot:
    """What became of the prompts: all six outcomes of one run, or the share with pairs of several."""
    id, title = "outcomes", "What became of the prompts"
    played = [[row for row in run["rounds"] if row["paired"] is not None] for run in report["runs"]]
    if not any(played):
        return Plot(id, title, "No round has been paired yet.")
    figure, (axis,) = panels()
    shares = [[_paired(row) for row in rows] for rows in played]
    prompts = counted([row["prompts"] for rows in played for row in rows], "prompts")
    if len(played) == 1:
        _stack(figure, axis, played[0])
        caption = f"Every prompt of a round has one of six outcomes; {prompts} per round."
    else:
        for index, rows in enumerate(shares):
            points = drawing.beside(rows, index, len(report["runs"]))
            axis.plot([p.x for p in points.values()], [p.y for p in points.values()], color=look(index).colour)
            drawing.mark(axis, points, look(index), drawing.labels(report)[index])
        drawing.share_axis(axis)
        drawing.round_axis(axis, shares, "prompts with pairs")
        drawing.legend(figure, axis, report)
        caption = f"Share of a round's prompts that gave pairs, with 95 % intervals; {prompts} per round."
    label = drawing.say_values("Prompts that gave pairs", report, shares, "percent")
    return Plot(id, title, caption, svg(figure, id, label))


def _paired(row: Row) -> Row:
    n = sum(row[name] for name in OUTCOMES)
    low, high = wilson(row["paired"] / n, n)
    return {"round": row["round"], "value": row["paired"] / n, "low": low, "high": high, "n": n}


def _stack(figure: Any, axis: Any, rows: Sequence[Row]) -> None:
    rounds, below = [row["round"] for row in rows], [0] * len(rows)
    for name, colour in OUTCOMES.items():
        heights = [row[name] for row in rows]
        axis.bar(rounds, heights, 0.72, below, color=colour, label=name, **BARS)
        below = [low + height for low, height in zip(below, heights, strict=True)]
    axis.yaxis.set_major_locator(ticks(5, integer=True))
    drawing.bar_axis(axis, rounds)
    drawing.step_axis(axis, "round", "prompts")
    figure.legend(loc="outside upper left", ncols=3, handlelength=1)


def learning_time(report: Row) -> Plot:
    id, title = "seconds", "Time to learn"
    by_run = [run["updates"] for run in report["runs"]]
    if not any(by_run):
        return Plot(id, title, "No update has been made yet.")
    longest = max(row["seconds"] for rows in by_run for row in rows)
    scale, unit = (1, "seconds") if longest < 300 else (60, "minutes") if longest < 18_000 else (3600, "hours")
    figure, (axis,) = panels()
    width = 0.72 / len(by_run)
    for index, rows in enumerate(by_run):
        shift = width * (index - (len(by_run) - 1) / 2)
        x, heights = [row["round"] + shift for row in rows], [row["seconds"] / scale for row in rows]
        style = {"color": look(index).colour, "label": drawing.labels(report)[index]} | BARS
        axis.bar(x, heights, width, **style)
    drawing.bar_axis(axis, [row["round"] for rows in by_run for row in rows])
    drawing.step_axis(axis, "round", unit)
    drawing.legend(figure, axis, report)
    pairs = counted([row["n_examples"] for rows in by_run for row in rows], "examples")
    steps = counted([row["steps"] for rows in by_run for row in rows], "optimizer steps").removeprefix("n = ")
    bounds = {"low": None, "high": None}
    values = [[{"round": row["round"], "value": row["seconds"]} | bounds for row in rows] for rows in by_run]
    caption = f"Wall-clock time of each update; {pairs} and {steps} per update."
    label = drawing.say_values("Seconds of learning", report, values, "number")
    return Plot(id, title, caption, svg(figure, id, label))
