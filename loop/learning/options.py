"""The options of learning that any method has. Loads no torch, because the config reads them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from sparring.loop.section import Section
from sparring.loop.types import Checkpoint, Round

# none: log-probs of 0. initial: the policy before round 1. previous: the policy that the round starts from.
# ema: an average over rounds, decay * (the reference of the previous round) + (1 - decay) * policy.
# sync (TR-DPO, arXiv:2404.09656): starts as the policy, and moves by `alpha` towards it every `every` steps.
# mixture (MRPO, arXiv:2405.16388): see `references.mix`.
ReferenceKind = Literal["none", "initial", "previous", "ema", "sync", "mixture"]


class Reference(Section, frozen=True):
    """Which policy an update compares with; a name alone is its kind."""

    kind: ReferenceKind = "previous"
    decay: float = Field(0.9, ge=0, le=1, description="ema: share of the previous round's reference")
    alpha: float = Field(0.6, ge=0, le=1, description="sync: how far the reference moves towards the policy")
    every: int = Field(512, ge=1, description="sync: optimizer steps between its moves")
    of: list[Literal["previous", "initial"]] = Field(["previous", "initial"], description="mixture: its policies")
    weights: list[float] | None = Field(None, description="mixture: one per policy; adaptive by default")
    clip: float | None = Field(None, ge=0, description="mixture: how far the others' log-probs may be from the first's")

    @model_validator(mode="after")
    def _mixes(self) -> Self:
        if self.kind == "mixture" and len(set(self.of)) < 2:
            raise ValueError(f"learn.reference.of is {self.of}; a mixture needs two different policies")
        if self.weights is not None and (len(self.weights) != len(self.of) or abs(sum(self.weights) - 1) > 1e-6):
            raise ValueError(
                f"learn.reference.weights is {self.weights}; expected {len(self.of)} weights with the sum 1"
            )
        return self

    def of_round(self, rnd: Round) -> list[Checkpoint]:
        """The checkpoints whose log-probs the update needs."""
        if self.kind in ("none", "sync"):  # sync follows the policy during the update
            return []
        if self.kind == "mixture":
            return [rnd.policy if name == "previous" else rnd.initial for name in self.of]
        return [rnd.reference]

    def named(self, rnd: Round) -> list[str]:
        """The checkpoint ids that an update records as its references."""
        return [rnd.reference.id] if self.kind == "sync" else [each.id for each in self.of_round(rnd)]


class Lora(Section, frozen=True):
    """Learn low-rank adapters (arXiv:2106.09685), merged into the weights after each round."""

    r: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0, description="the update is scaled by alpha / r")
    targets: str | list[str] = Field("all-linear", description="names of the modules that get an adapter")


class Optimization(Section, frozen=True):
    """How a model is trained, whatever its loss."""

    lr: float = Field(1e-6, gt=0)
    batch_size: int = Field(8, ge=1, description="pairs per optimizer step")
    epochs: int = Field(1, ge=1)
    warmup: float = Field(0.1, ge=0, le=1, description="share of the steps")
    schedule: str = Field("constant_with_warmup", description="a name that transformers.get_scheduler knows")
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    token_budget: int | None = Field(
        None, ge=1, description="padded tokens per pass; by default what the hardware allows"
    )
    save_seconds: float = Field(120.0, ge=0, description="seconds between saves of a long update's state")
