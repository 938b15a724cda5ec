"""Figures on learning, over the optimizer steps of all rounds."""

from collections.abc import Mapping, Sequence
from typing import Any

from sparring.report.drawing import grow, labels, share_axis, step_axis
from sparring.report.numbers import Row
from sparring.report.svg import COLOURS, GREY, Look, Plot, look, panels, svg

FEW = 40  # points; a curve with more is smoothed
LINES: tuple[Any, ...] = ("-", "--", ":")


def loss(report: Row) -> Plot:
    says = "Loss of each optimizer step, averaged over its batch"
    return _curves(report, "loss", "Loss", {"loss": "loss"}, "loss", says)


def accuracy(report: Row) -> Plot:
    names = {"accuracy": "implicit reward", "ranking_accuracy": "log P"}
    ranks = ", and the higher log-probability" if has(report, "ranking_accuracy") else ""
    higher = "score" if _scores(report) else f"implicit reward (beta log policy / reference){ranks}"
    says = f"Share of pairs whose chosen answer has the higher {higher}"
    return _curves(report, "accuracy", "Accuracy on training pairs", names, "pairs ranked right", says, True)


def rewards(report: Row) -> Plot:
    if _scores(report):
        says, names = "Score of chosen less rejected", {"margin": "margin"}
        return _curves(report, "rewards", "Score margin", names, "margin", says)
    names = {"reward_margin": "margin", "chosen_reward": "chosen", "rejected_reward": "rejected"}
    says = "Implicit rewards, beta log(policy / reference), of chosen and rejected answers, and their difference"
    return _curves(report, "rewards", "Implicit rewards", names, "reward (nats)", says)


def logps(report: Row) -> Plot:
    names = {"chosen_logp": "chosen", "rejected_logp": "rejected"}
    says = "Log-probability of whole chosen and rejected answers under the policy"
    return _curves(report, "logps", "Log-probabilities", names, "log P (nats per answer)", says)


def kl(report: Row) -> Plot:
    names = {"kl_k1": "k1", "kl_k2": "k2", "kl_k3": "k3"}
    says = "Estimates of KL(policy || reference) from the answers in training"
    return _curves(report, "step-kl", "KL from the reference", names, "KL (nats)", says)


def clipping(report: Row) -> Plot:
    says = "Share of policy / old ratios whose loss is clipped"
    return _curves(report, "clipping", "Clipped ratios", {"clip_share": "clipped"}, "share clipped", says, True)


def gradient(report: Row) -> Plot:
    id, title = "gradient", "Gradient norm and learning rate"
    if not has(report, "grad_norm"):
        return Plot(id, title, "No optimizer step with a gradient norm is stored yet.")
    figure, (above, below) = panels((3, 2))
    one = len(report["runs"]) == 1
    for index, run in enumerate(report["runs"]):
        _draw(above, _points(run, "grad_norm"), look(index), each=one)
        below.plot(*_steps(_points(run, "lr")), color=look(index).colour)
    above.set_ylabel("gradient norm")
    step_axis(below, "optimizer step", "learning rate")
    below.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    _borders(report, (above, below))
    _legend(figure, report, [])
    caption = f"Norm of the gradient before clipping, and the learning rate. {_how(report, 'grad_norm', one)}"
    return Plot(id, title, caption, svg(figure, id, _label(title, report, "grad_norm")))


def _curves(report: Row, id: str, title: str, names: Mapping[str, str], y: str, says: str, share: bool = False) -> Plot:
    metrics = [metric for metric in names if has(report, metric)]
    if not metrics:
        return Plot(id, title, "No optimizer step with this metric is stored yet.")
    figure, (axis,) = panels()
    one = len(report["runs"]) == 1
    alone = one and len(metrics) == 1
    for index, run in enumerate(report["runs"]):
        for number, metric in enumerate(metrics):
            colour = COLOURS[number] if one else look(index).colour
            _draw(axis, _points(run, metric), Look(colour, line=LINES[number]), each=alone)
    if share:
        share_axis(axis)
    step_axis(axis, "optimizer step", y)
    _borders(report, (axis,))
    _legend(figure, report, [names[metric] for metric in metrics] if len(metrics) > 1 else [])
    caption = f"{says}. {_how(report, metrics[0], alone)}"
    return Plot(id, title, caption, svg(figure, id, _label(title, report, metrics[0])))


def _draw(axis: Any, points: list[Row], look: Look, *, each: bool) -> None:
    """Draw few points as they are, and many as a running mean; a curve that is alone also shows what was averaged."""
    for rows in _by_round(points):
        x, y = _steps(rows)
        if len(points) <= FEW:
            axis.plot(x, y, look.line, marker=".", color=look.colour)
            continue
        if each and max(row["n"] for row in rows) > 1:
            lows, highs = ([row[bound] for row in rows] for bound in ("low", "high"))
            axis.fill_between(x, lows, highs, color=look.colour, alpha=0.15, linewidth=0)
        elif each:
            axis.plot(x, y, color=look.colour, alpha=0.3, linewidth=0.7)
        axis.plot(x, [row["smooth"] for row in rows], look.line, color=look.colour)


def _steps(rows: list[Row]) -> tuple[list[float], list[float]]:
    return [row["step"] for row in rows], [row["value"] for row in rows]


def _by_round(points: list[Row]) -> list[list[Row]]:
    """Points by round. A curve breaks between rounds, because the policy and the pairs change."""
    rounds = sorted({row["round"] for row in points})
    return [[row for row in points if row["round"] == round] for round in rounds]


def _borders(report: Row, axes: tuple[Any, ...]) -> None:
    """Draw where each round begins, and its number. Several runs have different borders, so none are drawn."""
    if len(report["runs"]) > 1:
        return
    updates, start = [row for row in report["runs"][0]["updates"] if row["steps"]], 0
    every = max(1, -(-len(updates) // 8))
    for number, row in enumerate(updates):
        for axis in axes:
            if number:
                axis.axvline(start + 0.5, color=GREY, linewidth=0.5, linestyle=(0, (1, 2)), zorder=1)
        if number % every == 0 and len(updates) > 1:
            middle, above = (start + 0.5 + row["steps"] / 2, 1), ("data", "axes fraction")
            style = {"xycoords": above, "textcoords": "offset points", "ha": "center", "color": GREY, "fontsize": 7}
            axes[0].annotate(f"r{row['round']}", middle, (0, 1), **style)
        start += row["steps"]


def _legend(figure: Any, report: Row, series: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    one = len(report["runs"]) == 1
    handles = [
        Line2D([], [], color=COLOURS[number] if one else GREY, linestyle=LINES[number], label=name)
        for number, name in enumerate(series)
    ]
    if not one:
        names = enumerate(labels(report))
        handles = [*(Line2D([], [], color=look(index).colour, label=name) for index, name in names), *handles]
    if handles:
        columns = 3 if one else 2
        figure.legend(handles=handles, loc="outside upper left", ncols=columns)
        grow(figure, len(handles) / columns)


def _points(run: Row, metric: str) -> list[Row]:
    return [row for row in run["steps"] if row["metric"] == metric]


def has(report: Row, metric: str) -> bool:
    return any(row["metric"] == metric for run in report["runs"] for row in run["steps"])


def _scores(report: Row) -> bool:
    """Whether the steps are of a reward model, which gives scores and has no reference."""
    return has(report, "margin") and not has(report, "reward_margin")


def _how(report: Row, metric: str, alone: bool) -> str:
    """How a curve was made from its steps, and their number."""
    curves = [_points(run, metric) for run in report["runs"]]
    steps = " and ".join(str(sum(row["n"] for row in points)) for points in curves)
    text = f"n = {steps} optimizer steps"
    if any(len(points) > FEW for points in curves):
        binned = max(row["n"] for points in curves for row in points)
        thin = f"bands: 10th to 90th percentile of {binned} steps" if binned > 1 else "thin: each step"
        mean = "running mean over a quarter of a round"
        text += f"; {thin}, bold: {mean}" if alone else f"; lines: {mean}"
    return text + ("; dotted: where a round begins." if len(curves) == 1 and len(_by_round(curves[0])) > 1 else ".")


def _label(title: str, report: Row, metric: str) -> str:
    ends = []
    for name, run in zip(labels(report), report["runs"], strict=True):
        if points := _points(run, metric):
            ends.append(f"{name}: from {points[0]['smooth']:.4g} to {points[-1]['smooth']:.4g}")
    return f"{title} over optimizer steps. {'; '.join(ends)}"
