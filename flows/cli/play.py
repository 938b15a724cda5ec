"""`spar run` and `spar resume`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.common import STORE, Store, say
from loop.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from flows.build import Prepared
    from flows.config import Config

Rounds = Annotated[int | None, typer.Option(min=1, help="Play up to this round.")]
NoPrefect = Annotated[bool, typer.Option("--no-prefect", help="Call the same steps without Prefect.")]


def register(app: typer.Typer) -> None:
    app.command()(run)
    app.command()(resume)


def run(
    config: Annotated[Path, typer.Argument(help="A YAML config.")],
    store: Store = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override, e.g. learn.beta=0.2")] = None,
    rounds: Rounds = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything that needs no model; change nothing.")
    ] = False,
    no_prefect: NoPrefect = False,
) -> None:
    """Play the rounds of CONFIG; the same command goes on where an earlier one was stopped."""
    from flows.config import read_config

    overrides = [*(set_ or []), *([f"store={store}"] if store else []), *([f"rounds={rounds}"] if rounds else [])]
    loaded = read_config(config, overrides)
    if dry_run:
        _plan(loaded)
    else:
        _play(loaded, no_prefect)


def resume(
    run: Annotated[str | None, typer.Argument(help="Name or id of a run; the latest when not given.")] = None,
    store: Store = None,
    rounds: Rounds = None,
    no_prefect: NoPrefect = False,
) -> None:
    """Go on with a run from exactly where it stopped."""
    from flows.config import parse_config
    from store.store import DuckStore

    path = Path(store or STORE).resolve()
    info = DuckStore(path).run(run)
    if info is None:
        raise StoreError(f"{path} has no run {run or 'at all'}; start one with: spar run CONFIG")
    if info.config.get("kind") == "reward":
        raise ConfigError(f"{info.id} is the training of a reward model; go on with: spar reward train CONFIG")
    values = {k: v for k, v in info.config.items() if k not in ("shape", "folder")}
    loaded = parse_config(values | {"store": str(path)} | ({"rounds": rounds} if rounds else {}), info.id)
    if Path(info.config["folder"]).is_dir():
        os.chdir(info.config["folder"])  # prompt files are named from where the run was started
    _play(loaded, no_prefect)


def _plan(config: "Config") -> None:
    import yaml

    from flows.build import prepare

    ready = prepare(config)
    per_round = config.prompts.per_round or len(ready.train)
    say(
        f"run {ready.info.id}: {config.rounds} rounds of {per_round} of {len(ready.train)} prompts x {config.sample.n} "
        f"samples, measured on {len(ready.held_out)} held-out prompts x {config.evaluate.n}"
    )
    print(yaml.safe_dump(config.resolved(), sort_keys=False), end="")


def _play(config: "Config", no_prefect: bool) -> None:
    os.environ.setdefault("TQDM_DISABLE", "1")  # our own progress is shown; read when tqdm is first imported
    from flows.build import prepare
    from flows.cli.tables import print_rounds

    ready = prepare(config)
    store, run_id = ready.store, ready.info.id
    if store.complete(run_id, config.rounds):
        say(f"run {run_id} is complete: {config.rounds} of {config.rounds} rounds; play more with --rounds N")
        print_rounds(store, run_id)
        return
    say(f"run {run_id} in {store.db.path}")
    error_file = store.db.path.parent / "runs" / run_id / "error.txt"
    try:
        _play_rounds(ready, no_prefect)
    except BaseException as error:
        error_file.parent.mkdir(parents=True, exist_ok=True)
        error_file.write_text(f"{type(error).__name__}: {error}\n")  # what `spar status` shows as the last error
        raise
    error_file.unlink(missing_ok=True)
    print_rounds(store, run_id)


def _play_rounds(ready: "Prepared", no_prefect: bool) -> None:
    from flows.cli.progress import Display

    with Display(ready.store, ready.info.id) as display:
        if no_prefect:
            from flows.build import build
            from flows.self_play import play_rounds

            loop = build(ready, watch=display.watch, progress=display.learning)
            try:
                play_rounds(loop, display.call, display.round_done)
            finally:
                loop.close()
        else:
            from flows.prefect_run import run_as_flow

            run_as_flow(ready, display)
