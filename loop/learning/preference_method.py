"""The method that learns from preferences: any pairwise or group loss on the training rows of a round."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparring.loop import traits
from sparring.loop.errors import ConfigError
from sparring.loop.hardware import device
from sparring.loop.learning.baselines import Baseline, Mismatched, Running
from sparring.loop.learning.checkpoint import load_model
from sparring.loop.learning.learner import UpdateContext, UpdateResult
from sparring.loop.learning.losses import GroupLoss
from sparring.loop.learning.optimize import optimize
from sparring.loop.learning.preference_terms import GroupObjective, PairObjective, Terms
from sparring.loop.learning.rationales import rationale_rows
from sparring.loop.learning.reference_logps import ReferenceLogps, make_reference_logps
from sparring.loop.learning.spo import degree_rows
from sparring.loop.learning.training_rows import GroupRows, PairRows

# What Terms.asides learns beside pairs, one row per pair.
ASIDES = {"rationale": rationale_rows, "degree": degree_rows}


class Preference:
    """Direct preference optimisation with a loss over pairs (Terms) or over groups of answers."""

    def __init__(
        self,
        terms: Terms | GroupLoss,
        *,
        algorithm: str = "preference",
        baseline: traits.Baseline = "none",
        from_divergence: bool = False,
    ) -> None:
        """`algorithm` is what the store calls the update: the name of the loss."""
        self.terms, self.algorithm, self.baseline, self.from_divergence = terms, algorithm, baseline, from_divergence

    def improve(self, work: UpdateContext) -> UpdateResult:
        batches = work.batches()
        objective = self._objective(work, [micro for batch in work.batches(1) for micro in batch])
        done = optimize(work.model, objective, batches, work.optimization, work.state, progress=work.progress)
        return UpdateResult(done.history)

    def _objective(self, work: UpdateContext, micro_batches: Sequence[Sequence[int]]) -> PairObjective | GroupObjective:
        """Raises ConfigError if the training rows are not what the loss learns from; flows checks it before a run."""
        terms, data = self.terms, work.data
        if isinstance(terms, Terms) and isinstance(data, PairRows):
            against = self._against(work, micro_batches)
            asides = {name: ASIDES[name](data, work.template) for name in sorted(terms.asides)}
            return PairObjective(terms, data, *against, work.dtype, asides)
        if not isinstance(terms, Terms) and isinstance(data, GroupRows):
            return GroupObjective(terms, data, *self._against(work, micro_batches), work.dtype)
        pairs, groups = "pairs", "groups of answers"
        raise ConfigError(
            f"the round has {pairs if isinstance(data, PairRows) else groups}, and the loss learns from "
            f"{pairs if isinstance(terms, Terms) else groups}; choose another pair.kind or learn.loss"
        )

    def _against(self, work: UpdateContext, micro_batches: Sequence[Sequence[int]]) -> tuple[ReferenceLogps, Baseline]:
        reference_logps = make_reference_logps(work.reference, work.data, work.model, work.dtype)
        return reference_logps, self._baseline(work, micro_batches)

    def _baseline(self, work: UpdateContext, micro_batches: Sequence[Sequence[int]]) -> Baseline:
        if self.baseline == "none":
            return Baseline()
        if self.baseline == "running":
            names = ("chosen_ratio", "rejected_ratio") if isinstance(self.terms, Terms) else ("ratio",)
            return Running(names)
        return Mismatched(work.data, self._reference_model(work), micro_batches, work.dtype)

    def _reference_model(self, work: UpdateContext) -> Any:
        references = work.reference.of_round(work.rnd)
        if work.reference.kind in ("sync", "mixture"):
            raise ConfigError(
                f"learn.reference is {work.reference.kind}, and this loss compares with answers to other prompts, "
                "which needs one reference that stays the same; choose none, initial, previous or ema"
            )
        return load_model(Path(references[0].path), device()) if references else None
