"""Judges by name, and how a section of the config becomes one."""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from pydantic import ValidationError

from sparring.flows.config import JudgeConfig, verdict_options
from sparring.loop.errors import ConfigError, DataError
from sparring.loop.options import check_options, nearest
from sparring.loop.parts import Judge
from sparring.loop.types import Checkpoint, JudgeInfo
from sparring.store.history import checkpoint
from sparring.store.store import DuckStore

if TYPE_CHECKING:
    from sparring.judges.llm_client import LLMClient
    from sparring.judges.local import Warms

    ClientOf = Callable[[str], LLMClient]  # who asks a policy, by its id

# name -> the function or class whose keyword arguments are the judge's options. Imported when asked for.
JUDGES = {
    "rules": "sparring.judges.rules:RulesJudge",
    "reward_model": "sparring.judges.reward_model:RewardModelJudge",
    "llm": "sparring.judges.llm:llm_judge",
    "principles": "sparring.judges.principles:principles_judge",
    "aspects": "sparring.judges.aspects:aspects_judge",
    "http": "sparring.judges.http:HTTPJudge",
    "implicit": "sparring.judges.implicit:ImplicitJudge",
    "panel": "sparring.judges.panel:Panel",
    "self": "sparring.judges.self_rewarding:SelfJudge",
    "active": "sparring.judges.active:ActiveJudge",
}
ROLES = ("explorer", "oracle")  # the judges of an active one
MODELS = ("policy", "reference")  # the models of an implicit one

# Judges to learn from alone, and why they cannot measure.
NO_EVAL_JUDGES = {
    "self": "a policy must not measure itself",
    "active": "it has an opinion of two answers a prompt, and held-out answers need one each",
}
# What a judge cannot be made of, and why.
NO_PART = {
    ("panel", "active"): "the members of a panel judge the same duels",
    ("active", "active"): "its oracle and its explorer judge what they are given",
    ("active", "self"): "its oracle sees two answers of a prompt, and may not see who the policy is",
}


def judge_factory(kind: str) -> Callable[..., Judge]:
    if kind not in JUDGES:
        raise ConfigError(f"there is no judge {kind!r}{nearest(kind, JUDGES)}; choose one of {', '.join(JUDGES)}")
    module, name = JUDGES[kind].split(":")
    factory: Callable[..., Judge] = getattr(import_module(module), name)
    return factory


def check_judge(section: JudgeConfig) -> None:
    """Refuse a judge or an option that does not exist, before anything heavy loads."""
    needs_policies = section.kind == "self"  # its first argument, which is no option
    check_options("judge", section.kind, judge_factory(section.kind), section.options, skip=int(needs_policies))
    for part in _parts(section):
        if why := NO_PART.get((section.kind, part.kind)):
            raise ConfigError(f"judge {section.kind} cannot be made of judge {part.kind}: {why}; choose another")
        check_judge(part)


def check_eval_judge(section: JudgeConfig) -> None:
    """Refuse a judge that cannot measure held-out answers."""
    for kind in (each.kind for each in every(section)):
        if kind in NO_EVAL_JUDGES:
            raise ConfigError(
                f"held-out answers would be measured by judge {kind}, and {NO_EVAL_JUDGES[kind]}; "
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
    factory, options = judge_factory(section.kind), section.options
    if section.kind == "panel":
        options["judges"] = [make_judge(part, client_of, folder_of) for part in _parts(section)]
    elif section.kind == "active":
        options |= {role: make_judge(_part(section, role), client_of, folder_of) for role in ROLES}
    elif section.kind == "implicit":
        options |= {model: folder_of(options[model]) for model in MODELS if model in options}
    elif section.kind == "self":
        if client_of is None:
            raise ConfigError(
                "judge self is the policy of a loop that is played, and there is none here; a checkpoint judges so as "
                "{kind: llm, model: ITS FOLDER, engine: local, form: pointwise, prompt: additive, scale: [0, 5]}"
            )
        return factory(client_of, **options)
    return factory(**options)


def policy_clients(sampler: "Warms", store: DuckStore, start: Checkpoint) -> "ClientOf":
    """Who asks the policies of a run, in the sampler's engine. `start` is the one that the run starts from."""
    from sparring.judges.local import PolicyClient
    from sparring.judges.self_rewarding import START

    def client_of(policy_id: str) -> "LLMClient":
        policy = start if policy_id in (START, start.id) else checkpoint(store.db, policy_id)
        if policy is None:
            raise DataError(f"{store.db.path} has no checkpoint {policy_id}, which is to judge; restore its row")
        return PolicyClient(policy, sampler)

    return client_of


def judge_info(section: JudgeConfig, judge: Judge) -> JudgeInfo:
    """What the store keeps of a judge: its name stands for these options and weights."""
    return JudgeInfo(judge.name, section.kind, verdict_options(section.model_dump(mode="json")), judge.weights)


def every(section: JudgeConfig) -> Iterator[JudgeConfig]:
    """A judge, and all that it is made of."""
    yield section
    for part in _parts(section):
        yield from every(part)


def oracle_of(section: JudgeConfig) -> JudgeConfig:
    """Of a judge that chooses what to ask: whom it asks."""
    return _part(section, "oracle")


def _parts(section: JudgeConfig) -> list[JudgeConfig]:
    if section.kind == "active":
        return [_part(section, role) for role in ROLES]
    if section.kind != "panel":
        return []
    given = section.options.get("judges")
    if not isinstance(given, list) or not given:
        raise ConfigError(f"a panel has judges {given!r}; wanted a list such as [{{kind: rules}}, {{kind: llm}}]")
    return [_section(member, "a member of the panel") for member in given]


def _part(section: JudgeConfig, role: str) -> JudgeConfig:
    given = section.options.get(role)
    if not isinstance(given, Mapping):
        raise ConfigError(f"an active judge has the {role} {given!r}; wanted a judge such as {{kind: reward_model}}")
    return _section(given, f"the {role} of an active judge")


def _section(given: object, what: str) -> JudgeConfig:
    try:
        return JudgeConfig.model_validate(given)
    except ValidationError as error:
        raise ConfigError(f"{what} is not a judge: {error.errors()[0]['msg']}") from error
