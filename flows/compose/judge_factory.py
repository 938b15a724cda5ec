"""Judges by name, and how a section of the config becomes one."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from pydantic import ValidationError

from sparring.flows.config import JudgeConfig, verdict_options
from sparring.judges import JUDGES
from sparring.judges.own import own_judge
from sparring.loop.errors import ConfigError, DataError
from sparring.loop.options import check_options
from sparring.loop.parts import Judge
from sparring.loop.types import Checkpoint, JudgeInfo
from sparring.store.history import checkpoint
from sparring.store.store import DuckStore

if TYPE_CHECKING:
    from sparring.judges.llm_client import LLMClient
    from sparring.judges.local import Warms
    from sparring.loop.tokens import Rendering

    ClientOf = Callable[[str], LLMClient]  # who asks a policy, by its id


def check_judge(section: JudgeConfig) -> None:
    """Refuse a judge or an option that does not exist, before anything heavy loads."""
    judge = JUDGES[section.kind]
    scores = bool(judge.source) and not isinstance(judge.make, type)  # a person's own score(prompt, completion)
    values = 2 if scores else int(judge.traits.asks_policies)  # the first parameters, which are no options
    check_options("judge", section.kind, judge.make, section.options, skip=values)
    for part in _parts(section):
        if why := JUDGES[part.kind].traits.cannot_join.get(section.kind):
            raise ConfigError(f"judge {section.kind} cannot be made of judge {part.kind}: {why}; choose another")
        check_judge(part)


def check_eval_judge(section: JudgeConfig) -> None:
    """Refuse a judge that cannot measure held-out answers."""
    for kind in (each.kind for each in every(section)):
        if why := JUDGES[kind].traits.cannot_measure:
            raise ConfigError(
                f"held-out answers would be measured by judge {kind}, and {why}; "
                "set evaluate.judge to another, such as evaluate: {judge: {kind: rules}}"
            )


def make_judge(
    section: JudgeConfig, client_of: "ClientOf | None" = None, folder_of: Callable[[str], str] = str
) -> Judge:
    """The judge that a section of the config names, those that it is made of first.

    `client_of` is given where there are policies to ask: in a loop. Raises ConfigError for judge self without.
    `folder_of` finds the models of an implicit judge, which in a loop may be `run:NAME`.
    """
    check_judge(section)
    judge, options = JUDGES[section.kind], section.options
    for option, number in judge.traits.parts.items():
        made = [make_judge(part, client_of, folder_of) for part in _parts_of(section, option)]
        options[option] = made if number == "several" else made[0]
    options |= {model: folder_of(options[model]) for model in judge.traits.models if model in options}
    if judge.source:
        return own_judge(judge, options)
    if not judge.traits.asks_policies:
        return judge.make(**options)  # type: ignore[no-any-return]
    if client_of is None:
        raise ConfigError(
            "judge self is the policy of a loop that is played, and there is none here; a checkpoint judges so as "
            "{kind: llm, model: ITS FOLDER, engine: local, form: pointwise, prompt: additive, scale: [0, 5]}"
        )
    return judge.make(client_of, **options)  # type: ignore[no-any-return]


def policy_clients(
    sampler: "Warms", store: DuckStore, start: Checkpoint, rendering: "Rendering | None" = None
) -> "ClientOf":
    """Who asks the policies of a run, in the sampler's engine. `start` is the one that the run starts from."""
    from sparring.judges.local import PolicyClient
    from sparring.judges.self_rewarding import START

    def client_of(policy_id: str) -> "LLMClient":
        policy = start if policy_id in (START, start.id) else checkpoint(store.db, policy_id)
        if policy is None:
            raise DataError(f"{store.db.path} has no checkpoint {policy_id}, which is to judge; restore its row")
        return PolicyClient(policy, sampler, rendering)

    return client_of


def judge_info(section: JudgeConfig, judge: Judge) -> JudgeInfo:
    """What the store keeps of a judge: its name stands for these options and weights."""
    return JudgeInfo(judge.name, section.kind, verdict_options(section.model_dump(mode="json")), judge.weights)


def every(section: JudgeConfig) -> Iterator[JudgeConfig]:
    """A judge, and all that it is made of."""
    yield section
    for part in _parts(section):
        yield from every(part)


def models_of(section: JudgeConfig) -> list[str]:
    """The models that it names and that may be `run:NAME`."""
    return [str(section.options[model]) for model in JUDGES[section.kind].traits.models if model in section.options]


def oracle_of(section: JudgeConfig) -> JudgeConfig:
    """Of a judge that chooses what to ask: whom it asks."""
    return _parts_of(section, "oracle")[0]


def _parts(section: JudgeConfig) -> list[JudgeConfig]:
    return [part for option in JUDGES[section.kind].traits.parts for part in _parts_of(section, option)]


def _parts_of(section: JudgeConfig, option: str) -> list[JudgeConfig]:
    """The judges of one option: one, or several."""
    value, where = section.options.get(option), f"{option} of judge {section.kind}"
    if JUDGES[section.kind].traits.parts[option] == "one":
        if not isinstance(value, Mapping):
            raise ConfigError(f"the {where} is {value!r}; expected a judge such as {{kind: reward_model}}")
        return [_section(value, f"the {where}")]
    if not isinstance(value, list) or not value:
        raise ConfigError(f"the {where} are {value!r}; expected a list such as [{{kind: rules}}, {{kind: llm}}]")
    return [_section(each, f"one of the {where}") for each in value]


def _section(value: object, what: str) -> JudgeConfig:
    try:
        return JudgeConfig.model_validate(value)
    except ValidationError as error:
        raise ConfigError(f"{what} is not a judge: {error.errors()[0]['msg']}") from error
