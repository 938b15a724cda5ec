"""The section on learning."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from sparring.flows.config.base import Named, WithOptions, warn_once
from sparring.loop.learning.options import Lora, Optimization, Reference, ReferenceKind
from sparring.loop.learning.recipes import STEPS


def _by_kind(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


def _short(reference: Reference) -> Any:
    """Its kind alone where nothing else is said of it."""
    return reference.kind if reference == Reference(kind=reference.kind) else dict(reference)


AnyReference = Annotated[
    Reference, BeforeValidator(_by_kind, json_schema_input_type=ReferenceKind | Reference), PlainSerializer(_short)
]


Algorithm = Literal["preference", "ppo", "rloo", "reinforce", "grpo", "dr_grpo"]


def _renamed(value: Any) -> Any:
    """Configs and runs from before the name say dpo, which is one preference loss of many."""
    if value != "dpo":
        return value
    warn_once("learn.algorithm: dpo is now called preference; the old name still works")
    return "preference"


class LearningMethod(WithOptions):
    """What an update learns from, and by; the options of its loss or algorithm stand beside."""

    algorithm: Annotated[Algorithm, BeforeValidator(_renamed, json_schema_input_type=Algorithm)] = Field(
        "preference",
        description="preference: any preference loss; the others are policy gradients, whose options stand beside it",
    )
    loss: str | list[Named] = Field(
        "sigmoid", description="sigmoid, ipo, kto, ...: see docs/methods.md; a list is a sum, each with a weight"
    )
    modifiers: list[Named] = Field(default_factory=list, description="f_divergence, margin, ...: change its inputs")
    regularisers: list[Named] = Field(default_factory=list, description="nll_chosen, optimism, ...: are added to it")
    ld_alpha: float = Field(1, ge=0, le=1, description="weight of tokens beyond the shorter answer's length (LD-DPO)")
    from_divergence: bool = Field(False, description="learn from the first token on in which a pair's answers differ")
    lora: Lora | None = None
    reference: AnyReference = Field(default_factory=Reference)


class Learn(Optimization, LearningMethod):
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _by_recipe(cls, values: Any) -> Any:
        """A recipe of PPO says how its steps are taken, where the config does not."""
        if isinstance(values, Mapping) and values.get("algorithm") == "ppo":
            return {**STEPS.get(values.get("recipe", "unpacking"), {}), **values}
        return values
