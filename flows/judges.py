"""Judges by name, and how a section of the config becomes one."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from pydantic import ValidationError

from flows.config import JudgeConfig, verdict_options
from loop.errors import ConfigError
from loop.options import check_options, nearest
from loop.parts import Judge
from loop.types import JudgeInfo

# name -> the function or class whose keyword arguments are the judge's options. Imported when asked for.
JUDGES = {
    "rules": "judges.rules:RulesJudge",
    "reward_model": "judges.reward_model:RewardModelJudge",
    "llm": "judges.llm:llm_judge",
    "principles": "judges.principles:principles_judge",
    "aspects": "judges.aspects:aspects_judge",
    "implicit": "judges.implicit:ImplicitJudge",
    "panel": "judges.panel:Panel",
}


def judge_factory(kind: str) -> Callable[..., Judge]:
    if kind not in JUDGES:
        raise ConfigError(f"there is no judge {kind!r}{nearest(kind, JUDGES)}; choose one of {', '.join(JUDGES)}")
    module, name = JUDGES[kind].split(":")
    factory: Callable[..., Judge] = getattr(import_module(module), name)
    return factory


def check_judge(section: JudgeConfig) -> None:
    """Refuse a judge or an option that does not exist, before anything heavy loads."""
    check_options("judge", section.kind, judge_factory(section.kind), section.options)
    for member in _members(section):
        check_judge(member)


def make_judge(section: JudgeConfig) -> Judge:
    """The judge that a section of the config names. A panel's members are made first."""
    check_judge(section)
    options: dict[str, Any] = dict(section.options)
    if section.kind == "panel":
        options["judges"] = [make_judge(member) for member in _members(section)]
    return judge_factory(section.kind)(**options)


def judge_info(section: JudgeConfig, judge: Judge) -> JudgeInfo:
    """What the store keeps of a judge: its name stands for these options and weights."""
    return JudgeInfo(judge.name, section.kind, verdict_options(section.model_dump(mode="json")), judge.weights)


def _members(section: JudgeConfig) -> list[JudgeConfig]:
    if section.kind != "panel":
        return []
    given = section.options.get("judges")
    if not isinstance(given, list) or not given:
        raise ConfigError(f"a panel has judges {given!r}; wanted a list such as [{{kind: rules}}, {{kind: llm}}]")
    try:
        return [JudgeConfig.model_validate(member) for member in given]
    except ValidationError as error:
        raise ConfigError(f"a member of the panel is not a judge: {error.errors()[0]['msg']}") from error
