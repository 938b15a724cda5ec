"""Figures as SVG within an HTML page: small, readable, the same bytes for the same data."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sparring.report.text import visible

SIZE = (3.5, 2.5)  # inches, so that 8 pt text is readable on a page of 400 px
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY, PALE = "#595959", "#E4E4E4"

STYLE: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "legend.columnspacing": 1.2,
    "legend.borderaxespad": 0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "errorbar.capsize": 1.8,
    "svg.fonttype": "none",  # text stays text, in the font of the page
    "text.parse_math": False,  # a judge may have a $ in its name
    "axes.formatter.use_mathtext": False,
}

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", XLINK)


@dataclass(frozen=True)
class Plot:
    """One figure of a page. When `svg` is None there is nothing to draw, and `caption` says why."""

    id: str
    title: str
    caption: str
    svg: str | None = None


@dataclass(frozen=True)
class Look:
    """Colour, marker and line that distinguish a run or a series."""

    colour: str
    marker: str = "o"
    line: str = "-"


def look(index: int) -> Look:
    """Colour and marker of a run by its number; 49 are distinct."""
    return Look(COLOURS[index % len(COLOURS)], MARKERS[(index + index // len(COLOURS)) % len(MARKERS)])


def panels(heights: Sequence[float] = (1,), height: float = SIZE[1]) -> tuple[Figure, list[Any]]:
    """A figure with axes below each other that share the x axis."""
    figure = Figure(figsize=(SIZE[0], height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=list(heights))[:, 0]
    for axis in axes:
        axis.yaxis.set_major_locator(ticks(6 if len(axes) == 1 else 3))
        axis.xaxis.set_major_locator(ticks(6))
    return figure, list(axes)


def ticks(most: int, *, integer: bool = False) -> MaxNLocator:
    """A locator of few ticks at round numbers."""
    return MaxNLocator(most, integer=integer, steps=[1, 2, 5, 10], min_n_ticks=1 if integer else 2)


def styled() -> Any:
    """The context in which figures are drawn and written."""
    return matplotlib.rc_context(STYLE)


def svg(figure: Figure, id: str, label: str) -> str:
    """The figure as an <svg> element with unique ids; a screen reader reads `label`."""
    with matplotlib.rc_context({"svg.hashsalt": id}):
        written = StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    # A <style> would apply to the whole page, and matplotlib names the fonts that it measured with.
    text = re.sub(r"<style.*?</style>|font-family: [^;\"]*;? ?", "", written.getvalue(), flags=re.DOTALL)
    root = ElementTree.fromstring(text)
    for name in ("width", "height"):
        del root.attrib[name]
    root.attrib |= {"role": "img", "aria-label": visible(label)}
    used = set(re.findall(r"\"(?:url\()?#([^)\"]+)", text))
    for element in root.iter():
        if element.get("id", "") not in used:
            element.attrib.pop("id", None)
        element.tail = None
    return ElementTree.tostring(root, encoding="unicode")
