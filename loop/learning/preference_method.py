"""The method of learning from preferences: any pairwise or group loss, on the training rows of a round."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sparring.loop.errors import ConfigError
from sparring.loop.learning.baselines import Baseline, Mismatched, Running, Zero
from sparring.loop.learning.learner import UpdateContext, UpdateResult
from sparring.loop.learning.losses import GroupLoss
from sparring.loop.learning.optimize import optimize
from sparring.loop.learning.preference_terms import GroupObjective, PairObjective, Terms
from sparring.loop.learning.rationales import rationale_rows
from sparring.loop.learning.reference_logps import make_reference_logps
from sparring.loop.learning.spo import degree_rows

# What is learned beside pairs, a row a pair: Terms.asides.
ASIDES = {"rationale": rationale_rows, "degree": degree_rows}

BaselineKind = Literal["none", "mismatched", "running"]


@dataclass(frozen=True)
class GroupTerms:
    """A loss over groups of answers."""

    loss: GroupLoss
    beta: float = 0.1


class Preference:
    """Direct preference optimisation with a loss of pairs (Terms) or of groups (GroupTerms)."""

    algorithm = "dpo"

    def __init__(
        self, terms: Terms | GroupTerms, *, baseline: BaselineKind = "none", from_divergence: bool = False
    ) -> None:
        self.terms, self.baseline, self.from_divergence = terms, baseline, from_divergence

    def improve(self, work: UpdateContext) -> UpdateResult:
        batches = work.batches()
        objective = self._objective(work, [micro for batch in work.batches(1) for micro in batch])
        done = optimize(work.model, objective, batches, work.optimization, work.state, progress=work.progress)
        return UpdateResult(done.history)

    def _objective(self, work: UpdateContext, micro_batches: Sequence[Sequence[int]]) -> PairObjective | GroupObjective:
        self._refuse_other(work)
        against = make_reference_logps(work.reference, work.data, work.model, work.dtype)
        baseline = self._baseline(work, micro_batches)
        if isinstance(self.terms, Terms):
            asides = {name: ASIDES[name](work.data, work.rnd.policy.path) for name in sorted(self.terms.asides)}
            return PairObjective(self.terms, work.data, against, baseline, work.dtype, asides)
        return GroupObjective(self.terms.loss, self.terms.beta, work.data, against, baseline, work.dtype)

    def _baseline(self, work: UpdateContext, micro_batches: Sequence[Sequence[int]]) -> Baseline:
        if self.baseline == "none":
            return Zero()
        if self.baseline == "running":
            names = ("chosen_ratio", "rejected_ratio") if isinstance(self.terms, Terms) else ("ratio",)
            return Running(names)
        return Mismatched(work.data, self._reference_model(work), micro_batches, work.dtype)

    def _reference_model(self, work: UpdateContext) -> Any:
        references = work.reference.of_round(work.rnd)
        if work.reference.kind in ("sync", "mixture"):
            raise ConfigError(
                f"this loss compares with answers to other prompts, and needs one reference that stays; "
                f"learn.reference is {work.reference.kind}: choose none, initial, previous or ema"
            )
        return work.load(references[0]) if references else None

    def _refuse_other(self, work: UpdateContext) -> None:
        """The pair builder and the loss must agree on what is learned from; flows checks it before a run starts."""
        pairs = "p_chosen" in work.data.table.column_names
        if pairs != isinstance(self.terms, Terms):
            raise ConfigError(
                f"the round has {'pairs' if pairs else 'groups of answers'}, and the loss learns from "
                f"{'groups of answers' if pairs else 'pairs'}; choose another pair.kind or learn.loss"
            )
