"""The section on learning."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from sparring.flows.config.base import Named, Section, WithOptions, warn_once
from sparring.loop.learning.recipes import STEPS

ReferenceKind = Literal["none", "initial", "previous", "ema", "sync", "mixture"]


class Reference(Section):
    """Which policy an update compares with; a name alone is its kind."""

    kind: ReferenceKind = "previous"
    decay: float = Field(0.9, description="ema: share of the reference of the round before")
    alpha: float = Field(0.6, description="sync: how far the reference moves to the policy")
    every: int = Field(512, description="sync: after how many optimizer steps it moves")
    of: list[str] = Field(default_factory=lambda: ["previous", "initial"], description="mixture: its policies")
    weights: list[float] | None = Field(None, description="mixture: of each; adaptive when not given")
    clip: float | None = Field(None, description="mixture: how far the others' log-probs may be from the first's")


def _by_kind(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


def _short(reference: Reference) -> Any:
    """Its kind alone where nothing else is said of it."""
    return reference.kind if reference == Reference(kind=reference.kind) else dict(reference)


AnyReference = Annotated[
    Reference, BeforeValidator(_by_kind, json_schema_input_type=ReferenceKind | Reference), PlainSerializer(_short)
]


class Lora(Section):
    """Learn low-rank adapters (arXiv:2106.09685), merged into the weights after each round."""

    r: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0, description="the update is scaled by alpha / r")
    targets: str | list[str] = Field("all-linear", description="names of the modules that get an adapter")


Algorithm = Literal["preference", "ppo", "rloo", "reinforce", "grpo", "dr_grpo"]


def _renamed(value: Any) -> Any:
    """Configs and runs from before the name say dpo, which is one preference loss of many."""
    if value != "dpo":
        return value
    warn_once("learn.algorithm: dpo is now called preference; the old name still works")
    return "preference"


class Learn(WithOptions):
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
    lr: float = Field(1e-6, gt=0)
    batch_size: int = Field(8, ge=1, description="pairs an optimizer step")
    epochs: int = Field(1, ge=1)
    reference: AnyReference = Field(default_factory=Reference)
    warmup: float = Field(0.1, ge=0, le=1, description="share of the steps")
    schedule: str = Field("constant_with_warmup", description="a name that transformers.get_scheduler knows")
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    token_budget: int | None = Field(
        None, ge=1, description="padded tokens a pass holds; by default as the hardware allows"
    )
    save_seconds: float = Field(120.0, ge=0, description="how often a long update saves its own state")
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _by_recipe(cls, values: Any) -> Any:
        """A recipe of PPO says how its steps are taken, where the config does not."""
        if isinstance(values, Mapping) and values.get("algorithm") == "ppo":
            return {**STEPS.get(values.get("recipe", "unpacking"), {}), **values}
        return values
