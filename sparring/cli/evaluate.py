"""`spar evaluate`: measure any checkpoint against any rival on a config's held-out prompts."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparring.cli.common import AsJson, Set, Store, overrides, print_json, say
from sparring.cli.tables import print_rows
from sparring.loop.formatting import interval

if TYPE_CHECKING:
    from sparring.flows.run.evaluate import Measurement
    from sparring.loop.types import Evaluation

WHICH = "An id in the store, a model's folder, or a hub id"


def evaluate(
    config: Annotated[
        Path, typer.Argument(help="A loop's YAML config, which names the held-out prompts and the judge.")
    ],
    checkpoint: Annotated[
        str | None, typer.Option(help=f"{WHICH}; the current policy of the config's run by default.")
    ] = None,
    rival: Annotated[str | None, typer.Option(help=f"{WHICH}; the initial policy by default.")] = None,
    store: Store = None,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Measure a checkpoint against a rival, apart from the loop; the same command resumes it."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    from sparring.flows.config import read_config
    from sparring.flows.run.evaluate import prepared

    with prepared(read_config(config, overrides(set_, store=store)), checkpoint, rival) as ready:
        if ready.done:
            say(f"{ready.info.id} in {ready.store.db.path} was measured before")
            results = ready.results()
        else:
            say(f"{ready.info.id} in {ready.store.db.path}: round 0 measures the rival, round 1 the candidate")
            results = _measure(ready)
        if as_json:
            print_json(_everything(ready, results))
        else:
            _print(ready, results)


def _measure(ready: "Measurement") -> "list[Evaluation]":
    from sparring.cli.progress import Display, Work
    from sparring.flows.run.evaluate import measure

    class Measuring(Display):
        def headings(self, work: Work | None) -> list[str]:
            who = "candidate" if self._round and self._round.index else "rival"
            return [f"measuring the {who}", work.what if work else ""]

    with Measuring(ready.store, ready.info.id) as display:
        return measure(ready, display.call, display.on_chunk)


def _everything(ready: "Measurement", results: "list[Evaluation]") -> dict[str, Any]:
    rows = [asdict(e) | {"of": "candidate" if e.round else "rival"} for e in results]
    return {
        "run_id": ready.info.id,
        "judge": ready.judge.name,
        "candidate": asdict(ready.candidate),
        "rival": asdict(ready.rival),
        "metrics": [{key: row[key] for key in ("of", "metric", "value", "low", "high", "n")} for row in rows],
    }


def _print(ready: "Measurement", results: "list[Evaluation]") -> None:
    of = {(e.round, e.metric): e for e in results}
    metrics = [e.metric for e in results if e.round and e.metric != "accepted"]
    cells = ((m, _cell(of.get((1, m))), _cell(of.get((0, m))), of[1, m].n) for m in metrics)
    columns = ("metric", "candidate", "rival", "n")
    print_rows([dict(zip(columns, row, strict=True)) for row in cells], columns)
    for name, checkpoint in (("candidate", ready.candidate), ("rival", ready.rival)):
        say(f"{name} {checkpoint.id} in {checkpoint.path}")
    gate = ready.config.evaluate.gate
    if gate is not None:
        say(f"the gate of {gate:g} would {'accept' if of[1, 'accepted'].value else 'reject'} the candidate")


def _cell(e: "Evaluation | None") -> str:
    """A value with its interval; none for the win rate of the rival over itself."""
    if e is None or (e.round == 0 and e.metric == "win_rate"):
        return "-"
    return interval(e.value, e.low, e.high)
