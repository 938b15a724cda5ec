"""`spar reward train`: train a reward model."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparring.cli.common import Store, say

if TYPE_CHECKING:
    from sparring.flows.run.reward import PreparedReward

reward_app = typer.Typer(help="Reward models: train one from labelled pairs.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(reward_app, name="reward")


@reward_app.callback()
def _group() -> None:
    """Keeps `train` a subcommand: Typer replaces a group by its only command."""


@reward_app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A YAML config; see docs/judges.md.")],
    store: Store = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override, e.g. train.epochs=2")] = None,
    no_prefect: Annotated[bool, typer.Option("--no-prefect", help="Train without Prefect.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the held-out results as JSON.")] = False,
) -> None:
    """Train a reward model, measure it on held-out pairs, and store it; the same command resumes it."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    from sparring.flows.config.reward import read_reward_config
    from sparring.flows.run.reward import prepare_reward

    overrides = [*(set_ or []), *([f"store={store}"] if store else [])]
    ready = prepare_reward(read_reward_config(config, overrides))
    say(f"{ready.info.id}: {len(ready.train)} training pairs, {len(ready.held_out)} held out, in {ready.store.db.path}")
    _train(ready, no_prefect)
    _report(ready, as_json)


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


def _report(ready: "PreparedReward", as_json: bool) -> None:
    from sparring.cli.tables import print_rows
    from sparring.store.db import rows

    with ready.store.db.read() as con:
        results = rows(
            con,
            """SELECT metric, e.value, low, high, n FROM evaluations e WHERE run_id = ? ORDER BY metric""",
            [ready.info.id],
        )
    checkpoint = ready.store.checkpoint_of(ready.info.id)
    path = checkpoint.path if checkpoint else ""
    if as_json:
        print(json.dumps({"run_id": ready.info.id, "model": path, "held_out": results}, indent=2))
        return
    print_rows(results, ["metric", "value", "low", "high", "n"], "table")
    say(f"the model is in {path}; use it as a judge: judge: {{kind: reward_model, model: {path}}}")
