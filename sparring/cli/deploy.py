"""`spar deploy` and `spar serve`: runs on a schedule, by Prefect."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sparring.cli.common import Store, say
from sparring.loop.errors import ConfigError

if TYPE_CHECKING:
    from sparring.flows.deployment.deploy import Deployed

What = Literal["self-play", "reward-model", "evaluate", "label"]

Config = Annotated[Path, typer.Argument(help="A YAML config; a judge's for --flow label.")]
Flow = Annotated[What, typer.Option("--flow", help="What a run does.")]
Name = Annotated[str | None, typer.Option(help="Of the deployment; the config's name when not given.")]
Cron = Annotated[str | None, typer.Option(help='When runs start, e.g. "0 2 * * *": every night at two.')]
Interval = Annotated[str | None, typer.Option(help="Or how often: seconds, or 15m, 12h, 1d.")]
Rrule = Annotated[str | None, typer.Option(help='Or by an RFC 5545 rule, e.g. "FREQ=WEEKLY;BYDAY=MO,WE;BYHOUR=2".')]
Timezone = Annotated[str, typer.Option(help="Of the schedule, e.g. Europe/Paris.")]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds that one run plays.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override, e.g. learn.beta=0.2")]


def register(app: typer.Typer) -> None:
    app.command()(deploy)
    app.command()(serve)


def deploy(
    config: Config,
    flow: Flow = "self-play",
    name: Name = None,
    cron: Cron = None,
    interval: Interval = None,
    rrule: Rrule = None,
    timezone: Timezone = "UTC",
    active: Annotated[
        bool, typer.Option("--active", help="Start by the schedule at once; else when switched on.")
    ] = False,
    rounds: Rounds = 1,
    pool: Annotated[str, typer.Option(help="Work pool; made, as one of processes, when it is not there.")] = "gpu",
    image: Annotated[str | None, typer.Option(help="Container image, for Docker and Kubernetes pools.")] = None,
    job_variable: Annotated[
        list[str] | None, typer.Option("--job-variable", help='Of the pool, e.g. env={"HF_HUB_OFFLINE":"1"}')
    ] = None,
    store: Store = None,
    set_: Set = None,
) -> None:
    """Make a Prefect deployment of CONFIG: each of its runs goes on where the last one stopped."""
    from sparring.flows.deployment.deploy import Pool, api_url
    from sparring.flows.deployment.deploy import deploy as make
    from sparring.flows.deployment.plans import PLANS, Asked, schedule

    url = api_url()
    schedules = schedule(cron, interval, rrule, timezone, active)
    where = Pool(pool, image, dict(map(_variable, job_variable or [])))
    first, *others = PLANS[flow](Asked(config, name, rounds, set_ or [], store))
    deployed = [make(replace(first, schedules=schedules), where), *(make(other, where) for other in others)]
    if any(each.made_pool for each in deployed):
        say(f"made the work pool {pool}, one of processes")
    for each in deployed:
        print(f"{each.full_name}\t{each.id}")
    _next_steps(deployed[0], pool, url, bool(schedules), active)


def _variable(text: str) -> tuple[str, Any]:
    import yaml

    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--job-variable {text!r} has no value; write it as key=value")
    return key, yaml.safe_load(value)


def _next_steps(deployed: "Deployed", pool: str, url: str, scheduled: bool, active: bool) -> None:
    say(f"start a worker where runs shall be: prefect worker start --pool {pool} --limit 1")
    say(f"run it now: prefect deployment run {deployed.full_name}")
    if scheduled and not active:
        say("its schedule is off; switch it on in its page, or deploy it again with --active")
    elif not scheduled:
        say("it has no schedule; give it one with --cron, --interval or --rrule")
    say(f"its page: {url.removesuffix('/api')}/deployments/deployment/{deployed.id}")


def serve(
    config: Config,
    flow: Flow = "self-play",
    name: Name = None,
    cron: Cron = None,
    interval: Interval = None,
    rrule: Rrule = None,
    timezone: Timezone = "UTC",
    rounds: Rounds = 1,
    store: Store = None,
    set_: Set = None,
) -> None:
    """Run CONFIG by its schedule on this machine until Ctrl-C, without a worker; schedules pause while it is off."""
    from sparring.flows.deployment.plans import PLANS, Asked, schedule
    from sparring.flows.deployment.serve import serve_here

    schedules = schedule(cron, interval, rrule, timezone, active=True)
    first, *others = PLANS[flow](Asked(config, name, rounds, set_ or [], store))
    serve_here([replace(first, schedules=schedules), *others], say)
