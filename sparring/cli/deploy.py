"""`spar deploy` and `spar serve`: runs on a schedule, by Prefect."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sparring.cli.common import Set, Store, say
from sparring.loop.errors import ConfigError

if TYPE_CHECKING:
    from sparring.flows.deployment.deploy import Deployed

What = Literal["self-play", "reward-model", "evaluate", "label"]

Config = Annotated[Path, typer.Argument(help="A YAML config; a judge's for --flow label.")]
Flow = Annotated[What, typer.Option("--flow", help="What each run does.")]
Name = Annotated[str | None, typer.Option(help="Name of the deployment; the config's name by default.")]
Cron = Annotated[str | None, typer.Option(help='When runs start, e.g. "0 2 * * *": every night at two.')]
Interval = Annotated[str | None, typer.Option(help="Time between runs: seconds, or 15m, 12h, 1d.")]
Rrule = Annotated[
    str | None, typer.Option(help='When runs start, as an RFC 5545 rule, e.g. "FREQ=WEEKLY;BYDAY=MO,WE;BYHOUR=2".')
]
Timezone = Annotated[str, typer.Option(help="Time zone of the schedule, e.g. Europe/Paris.")]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds per run.")]


def deploy(
    config: Config,
    flow: Flow = "self-play",
    name: Name = None,
    cron: Cron = None,
    interval: Interval = None,
    rrule: Rrule = None,
    timezone: Timezone = "UTC",
    active: Annotated[
        bool, typer.Option("--active", help="Activate the schedule now; by default it starts switched off.")
    ] = False,
    rounds: Rounds = 1,
    pool: Annotated[str, typer.Option(help="Work pool; created as a process pool when it does not exist.")] = "gpu",
    image: Annotated[str | None, typer.Option(help="Container image, for Docker and Kubernetes pools.")] = None,
    job_variable: Annotated[
        list[str] | None,
        typer.Option("--job-variable", help='Job variable of the pool, e.g. env={"HF_HUB_OFFLINE":"1"}'),
    ] = None,
    store: Store = None,
    set_: Set = None,
) -> None:
    """Create a Prefect deployment of CONFIG; each run resumes where the last one stopped."""
    from sparring.flows.deployment.deploy import Pool, api_url
    from sparring.flows.deployment.deploy import deploy as make
    from sparring.flows.deployment.plans import PLANS, Asked, schedule

    url = api_url()
    schedules = schedule(cron, interval, rrule, timezone, active)
    where = Pool(pool, image, dict(map(_variable, job_variable or [])))
    first, *others = PLANS[flow](Asked(config, name, rounds, set_ or [], store))
    deployed = [make(replace(first, schedules=schedules), where), *(make(other, where) for other in others)]
    if any(each.made_pool for each in deployed):
        say(f"created the work pool {pool}, of type process")
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
    say(f"start a worker on the machine that shall run it: prefect worker start --pool {pool} --limit 1")
    say(f"run it now: prefect deployment run {deployed.full_name}")
    if scheduled and not active:
        say("its schedule is off; switch it on in Prefect's page, or deploy again with --active")
    elif not scheduled:
        say("it has no schedule; set one with --cron, --interval or --rrule")
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
    """Run CONFIG on its schedule on this machine until Ctrl-C, without a worker; schedules pause when it ends."""
    from sparring.flows.deployment.plans import PLANS, Asked, schedule
    from sparring.flows.deployment.serve import serve_here

    schedules = schedule(cron, interval, rrule, timezone, active=True)
    first, *others = PLANS[flow](Asked(config, name, rounds, set_ or [], store))
    serve_here([replace(first, schedules=schedules), *others], say)
