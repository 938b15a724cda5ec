"""`spar run` and `spar resume`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparring.cli.common import Format, NoPrefect, Run, Set, Store, find_run, open_store, overrides, say
from sparring.cli.tables import print_rounds
from sparring.loop.errors import ConfigError, DataError, EnvironmentProblem, SavedAndLeft

if TYPE_CHECKING:
    from sparring.flows.compose.build import Prepared
    from sparring.flows.config import Config

Rounds = Annotated[int | None, typer.Option(min=1, help="Play up to this round.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything that needs no model, and change nothing.")]
Sweep = Annotated[Path | None, typer.Option(help="YAML file of changes to CONFIG: play every one, and compare.")]
ELSEWHERE = {  # kinds of runs that another command resumes
    "reward": "is the training of a reward model; resume it with: spar reward train CONFIG",
    "import": "is an import; finish an interrupted one with the same spar import",
    "evaluate": "is a measurement; resume it with the command that started it: spar evaluate CONFIG",
}


def run(
    config: Annotated[Path, typer.Argument(help="A YAML config.")],
    store: Store = None,
    set_: Set = None,
    rounds: Rounds = None,
    dry_run: DryRun = False,
    no_prefect: NoPrefect = False,
    sweep: Sweep = None,
    format: Annotated[Format | None, typer.Option(help="Format of a sweep's comparison.")] = None,
) -> None:
    """Play the rounds of CONFIG; the same command resumes a run that stopped."""
    from sparring.flows.config import read_config

    changes = overrides(set_, store=store, rounds=rounds)
    if sweep is not None:
        from sparring.cli.sweep import run_sweep

        run_sweep(config, sweep, changes, dry_run=dry_run, no_prefect=no_prefect, format=format or "table")
        return
    if format is not None:
        raise ConfigError("--format applies to the comparison of a sweep; give --sweep FILE too, or leave --format out")
    loaded = read_config(config, changes)
    if dry_run:
        _plan(loaded)
    else:
        _play(loaded, no_prefect)


def resume(
    run: Run = None, store: Store = None, set_: Set = None, rounds: Rounds = None, no_prefect: NoPrefect = False
) -> None:
    """Resume a run exactly where it stopped."""
    from sparring.flows.config import override, parse_config

    opened = open_store(store)
    info = find_run(opened, run)
    if info.kind in ELSEWHERE:
        raise ConfigError(f"{info.id} {ELSEWHERE[info.kind]}")
    values = {k: v for k, v in info.config.items() if k not in ("shape", "folder")} | {"store": str(opened.db.path)}
    for change in overrides(set_, rounds=rounds):
        override(values, change)
    loaded = parse_config(values, info.id)
    if Path(info.config["folder"]).is_dir():
        os.chdir(info.config["folder"])  # paths of prompt files are relative to where the run was started
    _play(loaded, no_prefect)


def _plan(config: "Config") -> None:
    import yaml

    from sparring.flows.compose.build import prepare

    ready = prepare(config)
    per_round = config.prompts.per_round or len(ready.train)
    say(
        f"run {ready.info.id}: {config.rounds} rounds of {per_round} of {len(ready.train)} prompts x {config.sample.n} "
        f"samples, measured on {len(ready.held_out)} held-out prompts x {config.evaluate.n}"
    )
    _check_prompts(ready)
    print(yaml.safe_dump(config.resolved(), sort_keys=False), end="")


def _check_prompts(ready: "Prepared") -> None:
    """Say which prompts the policy's chat template does not take, or its context. Raises where it takes none."""
    from sparring.flows.compose.prompt_checks import refusals, template_here

    try:
        template = template_here(ready)
    except (DataError, EnvironmentProblem) as error:
        say(f"the run will not start: {error}")
        return
    if template is None:
        say(f"{ready.config.policy.model} is not on this machine yet: its chat template was not tried on the prompts")
        return
    for key, prompts in (("prompts.train", ready.train), ("prompts.eval", ready.held_out)):
        for why, rows in refusals(ready.config, template, prompts).items():
            numbers = ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")
            say(f"{key}: {len(rows)} of {len(prompts)} prompts will fail, rows {numbers}: {why}")


def _play(config: "Config", no_prefect: bool) -> None:
    os.environ.setdefault("TQDM_DISABLE", "1")  # the progress display replaces it; read when tqdm is first imported
    from sparring.flows.compose.build import prepare
    from sparring.flows.run.decisions import awaited
    from sparring.flows.run.rounds import error_file, last_error, rounds_done
    from sparring.flows.run.standing import summaries
    from sparring.flows.supervise.guard import guarding

    ready = prepare(config)
    store, run_id = ready.store, ready.info.id
    file = error_file(store, run_id)
    waiting = awaited(store, run_id, config)  # before an engine starts in vain
    if waiting is None and store.complete(run_id, config.rounds):
        done = rounds_done(store, run_id)
        file.unlink(missing_ok=True)  # left by a process that was killed when all was done
        say(f"run {run_id} is complete: {done} of {config.rounds} rounds; play more with --rounds N")
    elif waiting is None:
        try:
            with guarding(file), last_error(file):
                say(f"run {run_id} in {store.db.path}")
                waiting = _play_rounds(ready, no_prefect)
        except KeyboardInterrupt:
            say(f"spar: interrupted; every row that was stored is kept. Resume with: spar resume {run_id}")
            raise typer.Exit(130) from None
        except SavedAndLeft as left:
            raise SavedAndLeft(f"{left}. Resume with: spar resume {run_id}") from None
    print_rounds(run_id, summaries(store, run_id))
    if waiting:
        say(waiting)


def _play_rounds(ready: "Prepared", no_prefect: bool) -> str | None:
    """Play the rounds; returns what the run waits for, if anything."""
    from sparring.cli.progress import Display
    from sparring.flows.run.self_play import run_as_flow, run_bare

    with Display(ready.store, ready.info.id, ready.config.rounds) as display:
        return (run_bare if no_prefect else run_as_flow)(ready, display).waiting
