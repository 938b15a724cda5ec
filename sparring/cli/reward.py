"""`spar reward train`: train a reward model."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparring.cli.common import NoPrefect, Store, overrides, print_json, say
from sparring.cli.tables import print_rows

if TYPE_CHECKING:
    from sparring.flows.run.reward import PreparedReward
    from sparring.store.store import DuckStore

RESULTS = ("metric", "value", "low", "high", "n")


def train(
    config: Annotated[Path, typer.Argument(help="A YAML config; see docs/judges.md.")],
    store: Store = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override, e.g. train.epochs=2")] = None,
    no_prefect: NoPrefect = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the held-out results as JSON.")] = False,
) -> None:
    """Train a reward model, measure it on held-out pairs, and store it; the same command resumes it."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    from sparring.flows.config.reward import read_reward_config
    from sparring.flows.run.reward import prepare_reward

    ready = prepare_reward(read_reward_config(config, overrides(set_, store=store)))
    say(f"{ready.info.id}: {len(ready.train)} training pairs, {len(ready.held_out)} held out, in {ready.store.db.path}")
    _train(ready, no_prefect)
    path, measured = held_out(ready.store, ready.info.id)
    if as_json:
        print_json({"run_id": ready.info.id, "model": path, "held_out": measured})
        return
    print_rows(measured, RESULTS)
    say(f"the model is in {path}; use it as a judge: judge: {{kind: reward_model, model: {path}}}")


def _train(ready: "PreparedReward", no_prefect: bool) -> None:
    from sparring.cli.progress import Bars
    from sparring.flows.run.reward import reward_flow, train_reward

    with Bars() as bars:
        if no_prefect:
            train_reward(ready, bars.show)
            return
        from sparring.flows.run.prefect_server import quiet_server

        with quiet_server() as wait:
            wait()
            reward_flow(lambda _: ready, bars.show)(ready.config)


def held_out(store: "DuckStore", run_id: str) -> tuple[str | None, list[dict[str, Any]]]:
    """The folder of a trained reward model, None before the end of the training, and its results on held-out pairs."""
    from sparring.store.db import rows

    checkpoint = store.checkpoint_of(run_id)
    with store.db.read() as con:
        sql = "SELECT metric, e.value, low, high, n FROM evaluations e WHERE run_id = ? ORDER BY metric"
        return checkpoint.path if checkpoint else None, rows(con, sql, [run_id])
