"""Figures on held-out prompts: pass rate, win rate, reward against KL, length."""

from sparring.report import drawing
from sparring.report.drawing import Point
from sparring.report.numbers import Row, measured
from sparring.report.svg import Plot, look, panels, svg
from sparring.report.text import counted


def pass_rate(report: Row) -> Plot:
    return _by_round(report, "pass-rate", "pass_rate", "Pass rate", "answers", "Share of held-out answers that pass")


def win_rate(report: Row) -> Plot:
    says = "Share of held-out prompts won over the rival, ties counting half"
    return _by_round(report, "win-rate", "win_rate", "Win rate", "prompts", says, first=1)


def _by_round(report: Row, id: str, metric: str, title: str, of: str, says: str, first: int = 0) -> Plot:
    by_run = [[row for row in measured(run, metric) if row["round"] >= first] for run in report["runs"]]
    if not any(by_run):
        compares = metric == "pass_rate" and any(measured(run, "win_rate") for run in report["runs"])
        no_score = "A judge that compares answers gives no score to pass with."
        return Plot(id, title, no_score if compares else f"No round has a {title.lower()} yet.")
    figure, (axis,) = panels()
    for index, (run, rows) in enumerate(zip(report["runs"], by_run, strict=True)):
        points = drawing.beside(rows, index, len(by_run))
        drawing.optimize(axis, run, points, look(index), drawing.labels(report)[index])
    gate = ""
    if metric == "win_rate":
        for value in drawing.bounds(report, "evaluate", "gate"):
            drawing.limit(axis, y=value, label="gate")
            gate = " Dashed: the gate."
        for value in drawing.bounds(report, "stop", "win_rate"):
            drawing.limit(axis, y=value, label="stop", line=":")
            gate += " Dotted: the run stops when the whole interval is below."
    drawing.share_axis(axis)
    drawing.round_axis(axis, by_run, title.lower())
    drawing.legend(figure, axis, report)
    caption = f"{says}, by round, with 95 % intervals; {counted(drawing.counts(by_run), of)} per round.{gate}"
    return Plot(id, title, caption, svg(figure, id, drawing.say_values(title, report, by_run, "percent")))


def reward_against_kl(report: Row) -> Plot:
    """The reward is the mean score, or the win rate for a judge that compares answers."""
    id, title = "reward-kl", "Reward against KL"
    metric = "mean_score" if any(measured(run, "mean_score") for run in report["runs"]) else "win_rate"
    name = {"mean_score": "mean score", "win_rate": "win rate"}[metric]
    points = [_reward_points(run, metric) for run in report["runs"]]
    if not any(len(each) > 1 for each in points):
        return Plot(id, title, "No round after the first has both a reward and a KL from the initial policy yet.")
    figure, (axis,) = panels()
    for index, (run, each) in enumerate(zip(report["runs"], points, strict=True)):
        drawing.optimize(axis, run, each, look(index), drawing.labels(report)[index])
        every = max(1, len(each) // 8)
        for round, point in each.items():
            if round % every == 0 or round == max(each):
                style = {"textcoords": "offset points", "ha": "right", "color": look(index).colour}
                axis.annotate(str(round), (point.x, point.y), (-3, 3.5), **style)
    for value in drawing.bounds(report, "stop", "kl"):
        drawing.limit(axis, x=value, label="stop", line=":")
    if metric == "win_rate":
        drawing.share_axis(axis)
    axis.set(xlabel="KL from the initial policy (nats per answer)", ylabel=f"held-out {name}")
    drawing.legend(figure, axis, report)
    n = counted(drawing.counts([measured(run, "kl") for run in report["runs"]]), "answers")
    caption = (
        f"Held-out {name} of each round's candidate against its KL divergence from the initial policy (0 for itself), "
        f"with 95 % intervals. KL is at temperature 1, summed along {n} of its own{_sampled(report)}. "
        f"Numbers are rounds.{_old_kl(report)}"
    )
    values = [measured(run, metric) for run in report["runs"]]
    return Plot(id, title, caption, svg(figure, id, drawing.say_values(f"{title}, {name}", report, values, "number")))


def _sampled(report: Row) -> str:
    at = [
        f"{name} {' or '.join(f'{value:g}' for value in values)}"
        for name in ("temperature", "top_p")
        if (values := drawing.bounds(report, "sample", name))
    ]
    return f", sampled at {', '.join(at)}" if at else ""


def _old_kl(report: Row) -> str:
    """What must be said of numbers that are of another kind than the rest."""
    old = sum(len(run["old_kl"]) for run in report["runs"])
    rounds = f"{old} of {sum(len(measured(run, 'kl')) for run in report['runs'])} rounds"
    says = (
        "is the mean log-ratio that earlier versions stored; it can be negative, and is not comparable with the others"
    )
    return f" The KL of {rounds} {says}." if old else ""


def _reward_points(run: Row, metric: str) -> dict[int, Point]:
    kl = {row["round"]: row for row in measured(run, "kl")}
    zero = {"value": 0.0, "low": None, "high": None}
    return {
        row["round"]: Point.of(row, across=kl.get(row["round"], zero))
        for row in measured(run, metric)
        if row["round"] in kl or row["round"] == 0
    }


def length(report: Row) -> Plot:
    id, title = "length", "Length"
    tokens = [measured(run, "mean_tokens") for run in report["runs"]]
    cut = [measured(run, "truncated") for run in report["runs"]]
    if not any(tokens):
        return Plot(id, title, "No round has been measured yet.")
    figure, (above, below) = panels((3, 2))
    for index, run in enumerate(report["runs"]):
        for axis, rows in ((above, tokens[index]), (below, cut[index])):
            points = drawing.beside(rows, index, len(report["runs"]))
            drawing.optimize(axis, run, points, look(index), drawing.labels(report)[index])
    above.set_ylabel("tokens")
    drawing.share_axis(below)
    drawing.round_axis(below, tokens, "cut off")
    drawing.legend(figure, above, report)
    caption = (
        "Mean length of held-out answers, and the share cut off at the longest allowed, by round, with 95 % intervals; "
        f"{counted(drawing.counts(tokens), 'answers')} per round."
    )
    return Plot(id, title, caption, svg(figure, id, drawing.say_values("Mean tokens", report, tokens, "number")))
