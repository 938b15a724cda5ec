"""The figures of docs/reward-models.md from the lines of reward_heads.py.

python benchmarks/plots.py heads benchmarks/results/reward-heads.jsonl docs/figures/reward-heads.svg
python benchmarks/plots.py best-of-n benchmarks/results/reward-ensembles.jsonl docs/figures/best-of-n.svg
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#555555")  # Okabe and Ito: told apart by all
# Of single runs the same bytes: figures are kept under version control.
plt.rcParams.update({"svg.hashsalt": "sparring", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})

Lines = list[dict[str, Any]]


def heads(lines: Lines) -> plt.Figure:
    """Held-out accuracy by share of the training pairs: the mean over seeds, and each seed as a dot."""
    rows = [line for line in lines if "fraction" in line]
    names, kinds = _in_order(rows, "pairs"), _in_order(rows, "head")
    figure, axes = plt.subplots(1, len(names), figsize=(3.6 * len(names), 3), squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names, strict=True):
        for colour, kind in zip(COLOURS, kinds, strict=False):
            points = [(r["fraction"], r["accuracy"]["value"]) for r in rows if (r["pairs"], r["head"]) == (name, kind)]
            by_share: dict[float, list[float]] = defaultdict(list)
            for share, value in points:
                by_share[share].append(value)
            shares = sorted(by_share)
            axis.plot(shares, [np.mean(by_share[s]) for s in shares], color=colour, label=kind)
            axis.scatter(*zip(*points, strict=True), color=colour, s=12, alpha=0.5, linewidths=0)
        axis.axhline(0.5, color="#999999", linewidth=0.8, linestyle=":")
        axis.set(xscale="log", title=_title(name), xlabel="share of the training pairs")
        axis.set_xticks(shares, [f"{s:.0%}" for s in shares])
        axis.minorticks_off()
    axes[0][0].set_ylabel("held-out accuracy")
    axes[0][0].legend(frameon=False)
    return figure


def best_of_n(lines: Lines) -> plt.Figure:
    """Gold score of the best of n by each way to one score, without and with turned labels; the mean over seeds."""
    rows = [line for line in lines if "curves" in line]
    kinds, flips = list(dict.fromkeys((r["pairs"], r["head"]) for r in rows)), sorted({r["flip"] for r in rows})
    size = (3.4 * len(flips), 2.5 * len(kinds))
    figure, axes = plt.subplots(len(kinds), len(flips), figsize=size, squeeze=False, layout="constrained")
    for kind, line_of in zip(kinds, axes, strict=True):
        for flip, axis in zip(flips, line_of, strict=True):
            found = [r["curves"] for r in rows if (r["pairs"], r["head"], r["flip"]) == (*kind, flip)]
            for colour, way in zip(COLOURS, ("single", "mean", "worst", "uncertainty", "lower_bound"), strict=False):
                ns = [point["n"] for point in found[0][way]]
                gold = np.array([[point["gold"] for point in curves[way]] for curves in found])
                axis.plot(ns, gold.mean(0), color=colour, label=way.replace("_", " "))
            axis.set(xscale="log", title=f"{_title(kind[0])}, {kind[1]}, {flip:.0%} turned", xlabel="n")
            axis.set_xticks(ns, ns)
            axis.minorticks_off()
        line_of[0].set_ylabel("gold score (sd)")
    axes[0][0].legend(frameon=False)
    return figure


def _in_order(rows: Lines, key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))


def _title(name: str) -> str:
    return name.removeprefix("prefs_").removesuffix("_human").replace("_", " ")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=["heads", "best-of-n"])
    parser.add_argument("lines", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args(arguments)
    lines = [json.loads(line) for line in given.lines.read_text().splitlines()]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    figure = heads(lines) if given.figure == "heads" else best_of_n(lines)
    figure.savefig(given.out, metadata={"Date": None})


if __name__ == "__main__":
    main()
