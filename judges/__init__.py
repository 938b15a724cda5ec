"""Judges: each scores completions, alone or against a rival. By name in JUDGES, loaded when asked for."""

from sparring.loop.registry import Registry
from sparring.loop.traits import JudgeTraits

# A config is checked against every judge's signature, so these modules load nothing heavy.
JUDGES = Registry(
    "judge",
    JudgeTraits,
    {
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
    },
    "sparring.judges",
)
