"""The report as one HTML page that loads nothing from outside and runs no script."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jinja2
import yaml
from markupsafe import Markup

from sparring.loop.errors import ConfigError
from sparring.loop.formatting import duration, percent, significant
from sparring.report import text
from sparring.report.numbers import CHARACTERS, Row, measured, report_data
from sparring.store.store import DuckStore

FOLDED = 600  # characters; of a longer text only the beginning is shown at first
RATES = {"pass_rate", "win_rate", "truncated", "abstained"}
RATES |= {"accuracy", "longer_wins", "length_controlled", "ties", "identical", "duplicate", "too_long"}  # reward models
TABLE = {  # columns of the table by round: metric and heading
    "pass_rate": "pass rate",
    "win_rate": "win rate",
    "mean_score": "mean score",
    "kl": "KL (nats per answer)",
    "mean_tokens": "tokens",
    "truncated": "cut off",
    "abstained": "no answer",
}


def default_path(run_ids: Sequence[str]) -> Path:
    """report-<run id>.html, with the number of further runs when there are several."""
    more = f"-and-{len(run_ids) - 1}-more" if len(run_ids) > 1 else ""
    return Path(f"report-{run_ids[0]}{more}.html")


def write_report(store: DuckStore, run_ids: Sequence[str], to: Path, pairs: int = 12) -> Path:
    """Write the page about these runs (by default the latest) with that many pairs to read; returns its path.

    The same store gives the same bytes. An existing page is replaced in one step. Raises StoreError, ConfigError.
    """
    if to.is_dir():
        raise ConfigError(f"{to} is a folder; give the report a file name, e.g. {to / 'report.html'}")
    page = render(report_data(store, run_ids, pairs))
    to.parent.mkdir(parents=True, exist_ok=True)
    partial = to.with_name(f"{to.name}.{os.getpid()}.partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(to)
    return to


def render(report: Row) -> str:
    """HTML of the data of `report_data`."""
    from sparring.report.plots import sections  # loads matplotlib
    from sparring.report.svg import look

    table = {metric: name for metric, name in TABLE.items() if any(measured(run, metric) for run in report["runs"])}
    looks = [look(index) for index in range(len(report["runs"]))]
    page = _environment().get_template("page.html.jinja")
    return page.render(**report, sections=sections(report), looks=looks, table=table)


def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters |= {
        "visible": text.visible,
        "sentence": text.sentence,
        "unbroken": text.unbroken,
        "percent": partial(percent, missing=text.NONE),
        "number": partial(significant, missing=text.NONE),
        "seconds": partial(duration, missing=text.NONE),
        "yaml": _yaml,
        "drawn": Markup,  # figures are our own XML
        "beginning": _beginning,
    }
    environment.globals |= {"at": _at, "shown": _shown, "most": CHARACTERS}
    return environment


def _at(run: Row, metric: str, round: int | None) -> Row | None:
    """The evaluation of a metric in a round."""
    return next((row for row in measured(run, metric) if row["round"] == round), None)


def _shown(row: Row | None, metric: str) -> str:
    return text.interval(row, "percent" if metric in RATES else "number")


def _yaml(config: Row) -> str:
    """The config as YAML, without the keys that `runs` stores beside it."""
    values = {key: value for key, value in config.items() if key not in ("shape", "folder")}
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _beginning(body: str) -> str | None:
    """The beginning of a text that is too long to show at once, else None."""
    start = "\n".join(body[:FOLDED].split("\n")[:10])
    return start if len(start) < len(body) else None
