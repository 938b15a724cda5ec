"""The whole config, and what of it shapes a run's rows."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from sparring.flows.config.learn import Learn
from sparring.flows.config.run import Keep, Steps, Stop
from sparring.flows.config.sample import JudgeConfig, PairConfig, Policy, Prompts, Sample
from sparring.judges import JUDGES
from sparring.loop.section import Section
from sparring.store import DEFAULT_PATH


class Evaluate(Section):
    rival: Literal["initial", "previous"] = "initial"
    n: int = Field(4, ge=1, description="completions per held-out prompt")
    gate: float | None = Field(
        0.5, ge=0, le=1, description="least win rate over the rival at which a candidate is accepted"
    )
    pass_at: float = Field(1.0, description="least score at which a completion passes")
    judge: JudgeConfig | None = Field(None, description="who judges held-out answers; the judge of training by default")


class Config(Section):
    """One loop. `spar init` writes a commented example."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    store: str = DEFAULT_PATH
    seed: int = Field(0, ge=0)
    rounds: int = Field(3, ge=1)
    policy: Policy
    prompts: Prompts
    sample: Sample = Field(default_factory=Sample)
    judge: JudgeConfig = Field(default_factory=JudgeConfig)
    pair: PairConfig = Field(default_factory=PairConfig)
    learn: Learn = Field(default_factory=Learn)
    evaluate: Evaluate = Field(default_factory=Evaluate)
    approve: bool = Field(False, description="wait after each round for: spar approve, or spar reject")
    stop: Stop = Field(default_factory=Stop)
    steps: Steps = Field(default_factory=Steps)
    keep: Keep = Field(default_factory=Keep)
    trackers: list[str] = Field(default_factory=list, description="tensorboard, wandb, trackio: extras of sparring")

    def resolved(self) -> dict[str, Any]:
        """All values, defaults too, in JSON types."""
        return self.model_dump(mode="json")

    def shape(self, prompts_sha256: Mapping[str, str]) -> dict[str, Any]:
        """What shapes a run's rows: all but where it is kept and how it is operated; prompts by their content."""
        shape = self.resolved()
        for free in FREE:
            del shape[free]
        for section, names in LATER.items():
            default = type(getattr(self, section))().model_dump(mode="json")
            for name in names:
                if shape[section][name] == default[name]:
                    del shape[section][name]
        if shape["learn"]["algorithm"] == "preference":
            shape["learn"]["algorithm"] = "dpo"  # as runs from before the name have it
        shape["judge"] = verdict_options(shape["judge"])
        if shape["evaluate"]["judge"] is not None:
            shape["evaluate"]["judge"] = verdict_options(shape["evaluate"]["judge"])
        if not self.policy.template:
            del shape["policy"]["template"]
        chosen = {"query": self.prompts.query} if self.prompts.query else {}
        if self.prompts.system != "keep":
            chosen["system"] = self.prompts.system
        shape["prompts"] = {"per_round": self.prompts.per_round, **chosen, **prompts_sha256}
        return shape


# How a run is operated may change from day to day: it shapes no row.
FREE = ("store", "rounds", "approve", "stop", "steps", "keep", "trackers")

# Keys that came after runs were started without them: at their default they shape what those runs have.
LATER = {
    "sample": ("engine", "extra", "tree"),
    "pair": ("filters",),
    "learn": ("modifiers", "regularisers", "ld_alpha", "from_divergence", "lora"),
}


def verdict_options(judge: Mapping[str, Any]) -> dict[str, Any]:
    """What shapes a judge's verdicts: not how patient we are with it, nor where it is reached."""
    traits = JUDGES[judge.get("kind", "rules")].traits
    kept = {k: v for k, v in judge.items() if k not in ("max_abstain", "canaries", *traits.reached_by)}
    for option in traits.parts:
        if isinstance(parts := kept.get(option), list):
            kept[option] = [verdict_options(part) if isinstance(part, Mapping) else part for part in parts]
        elif isinstance(parts, Mapping):
            kept[option] = verdict_options(parts)
    return kept


def sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
