"""From a request to deploy to its plans. The config is read and checked as `spar run` does it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparring.flows.deployment.deploy import Plan
from sparring.loop.errors import ConfigError
from sparring.store import DEFAULT_PATH

if TYPE_CHECKING:
    from prefect.schedules import Schedule


@dataclass(frozen=True)
class Asked:
    """A request to deploy a config. `rounds` is per run; `overrides` are those of --set."""

    config: Path
    name: str | None = None
    rounds: int = 1
    overrides: Sequence[str] = ()
    store: str | None = None

    def settings(self) -> list[str]:
        return [*self.overrides, *([f"store={self.store}"] if self.store else [])]


def self_play(asked: Asked) -> list[Plan]:
    """The loop, and a deployment for decisions when its rounds await a person."""
    from sparring.flows.compose.build import prepare
    from sparring.flows.config import read_config

    config = read_config(asked.config, asked.settings())
    prepare(config)
    name = asked.name or config.name
    parameters = {"config": config.resolved(), "rounds": asked.rounds}
    plans = [Plan(name, "sparring.scheduled.self_play", parameters, config.store)]
    if config.approve:
        decide = {"store": config.store, "run": config.name}
        plans.append(Plan(name, "sparring.scheduled.decide", decide, config.store))
    return plans


def reward_model(asked: Asked) -> list[Plan]:
    from sparring.flows.config.reward import read_reward_config
    from sparring.flows.run.reward import prepare_reward

    config = read_reward_config(asked.config, asked.settings())
    prepare_reward(config)
    parameters = {"config": config.model_dump(mode="json")}
    return [Plan(asked.name or config.name, "sparring.scheduled.reward_model", parameters, config.store)]


def evaluate(asked: Asked) -> list[Plan]:
    """The config's current policy against its initial policy; a run may name other models."""
    from sparring.flows.compose.build import check_labels, read_all_prompts
    from sparring.flows.config import read_config

    config = read_config(asked.config, asked.settings())
    check_labels(config)
    read_all_prompts(config)
    parameters = {"config": config.resolved()}
    return [Plan(asked.name or config.name, "sparring.scheduled.evaluate", parameters, config.store)]


def label(asked: Asked) -> list[Plan]:
    """A judge over all answers in the store when a run starts. The config is a judge's, as for spar judge label."""
    from sparring.flows.run.judge_trials import read_judge

    if asked.overrides:
        raise ConfigError("--set applies to configs of a loop or a reward model; change the judge's file instead")
    judge = read_judge(asked.config)
    store = asked.store or DEFAULT_PATH
    parameters = {"judge": judge.model_dump(mode="json"), "store": store}
    return [Plan(asked.name or asked.config.stem, "sparring.scheduled.label", parameters, store)]


PLANS: dict[str, Callable[[Asked], list[Plan]]] = {
    "self-play": self_play,
    "reward-model": reward_model,
    "evaluate": evaluate,
    "label": label,
}

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def schedule(
    cron: str | None, interval: str | None, rrule: str | None, timezone: str, active: bool
) -> "list[Schedule]":
    """The schedule of a deployment, from at most one of the three options. Raises ConfigError."""
    from prefect.client.schemas.schedules import construct_schedule
    from prefect.schedules import Cron, Interval, RRule
    from pydantic import ValidationError

    makers: dict[str, tuple[Callable[..., Schedule], str | None]] = {
        "--cron": (Cron, cron),
        "--interval": (lambda text, **options: Interval(seconds(text), **options), interval),
        "--rrule": (RRule, rrule),
    }
    given = [(option, make, value) for option, (make, value) in makers.items() if value]
    if len(given) > 1:
        options = " and ".join(option for option, *_ in given)
        raise ConfigError(f"{options} were given; expected one schedule, so leave out the others")
    if not given:
        return []
    ((option, make, value),) = given
    try:
        schedule = make(value, timezone=timezone, active=active)
        rule = {name: getattr(schedule, name) for name in ("cron", "interval", "rrule", "timezone")}
        construct_schedule(**rule)  # Prefect checks it only when it is sent
    except ValueError as error:
        errors = error.errors() if isinstance(error, ValidationError) else [{"msg": error}]
        why = "; ".join(str(problem["msg"]) for problem in errors)
        raise ConfigError(f"{option} {value!r} with --timezone {timezone}: {why}") from error
    return [schedule]


def seconds(text: str) -> float:
    """Seconds of `90`, `90s`, `15m`, `12h` or `1d`. Raises ValueError."""
    number, unit = (text[:-1], SECONDS[text[-1]]) if text[-1:] in SECONDS else (text, 1)
    duration = float(number) * unit
    if not duration > 0:
        raise ValueError("expected an interval above 0")
    return duration
