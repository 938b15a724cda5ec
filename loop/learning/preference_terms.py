"""The objectives of every preference loss: learning from pairs, or from groups of scored answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sparring.loop.errors import ConfigError
from sparring.loop.hardware import autocast, device
from sparring.loop.learning.advantages import KINDS, kl_estimate
from sparring.loop.learning.baselines import Baseline
from sparring.loop.learning.batches import Batch, Row
from sparring.loop.learning.forward_choice import batch_for
from sparring.loop.learning.logprobs import completion_logprobs, token_logprobs
from sparring.loop.learning.losses import GroupLoss, Groups, Logps, Loss, Modifier, mean_loss, metrics
from sparring.loop.learning.objectives import History, Plain
from sparring.loop.learning.reference_logps import ReferenceLogps
from sparring.loop.learning.training_rows import GroupRows, PairRows, TrainingRows


@dataclass(frozen=True)
class Terms:
    """The parts of a pair's loss: modifiers change its log-probs, regularisers are added to its loss."""

    loss: Loss
    modifiers: Sequence[Modifier] = ()
    regularisers: Sequence[Loss] = ()
    beta: float = 0.1  # scales the reported implicit rewards
    ld_alpha: float = 1.0  # weight of the tokens beyond the shorter answer's length (LD-DPO, arXiv:2409.06411)
    whole_batch: bool = False  # the loss needs all pairs of a batch at once
    asides: frozenset[str] = frozenset()  # what regularisers learn beside the pairs: rationale, degree


class _Preference(Plain):
    """The forward pass that pairs and groups share."""

    def __init__(self, data: TrainingRows, reference_logps: ReferenceLogps, baseline: Baseline, dtype: str) -> None:
        self.data, self.reference_logps, self.baseline, self.dtype = data, reference_logps, baseline, dtype

    def begin(self, model: Any, batch: Sequence[Sequence[int]], history: History) -> None:
        super().begin(model, batch, history)
        self.micro_batches = len(batch)
        self.level = self.baseline.of(model, batch, history)

    def stepped(self, model: Any, step: int) -> None:
        self.reference_logps.stepped(model, step)

    def tensors(self) -> dict[str, Tensor]:
        return self.reference_logps.tensors()

    def _forward(self, model: Any, rows: Sequence[int], ld_alpha: float = 1.0) -> "_Answers":
        batch = batch_for(model, [self.data.rows[i] for i in rows])
        with autocast(self.dtype):
            policy = token_logprobs(model, batch)
        reference = self.reference_logps.tokens(batch, rows)
        weights = _token_weights(batch, self.data, rows, ld_alpha)
        against = self.reference_logps.sums(reference, weights, batch, rows)
        answers = _Answers(batch, batch.sums(policy * weights), against, {})
        if reference is None:
            return answers
        z = policy.detach()
        return replace(answers, kl={kind: batch.sums(kl_estimate(z, reference, kind)) for kind in KINDS})


@dataclass(frozen=True)
class _Answers:
    """The log-probs of the S completions of a micro-batch."""

    batch: Batch
    policy: Tensor  # (S,)
    reference: Tensor  # (S,)
    kl: Mapping[str, Tensor]  # (S,) estimates, summed over tokens


class PairObjective(_Preference):
    """A pairwise loss over pairs."""

    def __init__(
        self,
        terms: Terms,
        data: PairRows,
        reference_logps: ReferenceLogps,
        baseline: Baseline,
        dtype: str,
        asides: Mapping[str, Sequence[Row | None]],
    ) -> None:
        super().__init__(data, reference_logps, baseline, dtype)
        self.terms, self.asides, where = terms, asides, device()
        self.p, self.margin, self.weight = (data.column(name, where) for name in ("p_chosen", "margin", "weight"))
        self.samples = data.samples

    def share(self, model: Any, rows: Sequence[int]) -> tuple[Tensor, dict[str, float]]:
        if self.terms.whole_batch and self.micro_batches > 1:
            raise ConfigError(
                "this loss sorts all pairs of a batch, and the batch does not fit into one pass; lower "
                "learn.batch_size or raise learn.token_budget"
            )
        answers = self._forward(model, rows, self.terms.ld_alpha)
        logps = self._beside(model, self._logps(answers, rows), rows)
        changed = logps
        for modify in self.terms.modifiers:
            changed = modify(changed)
        values = self.terms.loss(changed)
        for regularise in self.terms.regularisers:
            values = values + regularise(logps)
        totals = metrics(logps, values, self.terms.beta) | _pair_kl(answers, self._first(rows))
        return mean_loss(values, changed.weight, self.n), {name: float(v) / self.n for name, v in totals.items()}

    def _beside(self, model: Any, logps: Logps, rows: Sequence[int]) -> Logps:
        """Add log P of what is learned beside the pairs; it is 0 for a pair without an aside."""
        for name, asides in self.asides.items():
            policy, tokens = self._aside(model, logps, [asides[i] for i in rows])
            logps = replace(logps, **{f"policy_{name}": policy, f"{name}_tokens": tokens})
        return logps

    def _aside(self, model: Any, logps: Logps, asides: Sequence[Row | None]) -> tuple[Tensor, Tensor]:
        here = [(k, row) for k, row in enumerate(asides) if row is not None]
        policy, tokens = torch.zeros_like(logps.policy_chosen), torch.ones_like(logps.chosen_tokens)
        if here:
            batch = batch_for(model, [row for _, row in here])
            with autocast(self.dtype):
                logprobs = completion_logprobs(model, batch)
            place = torch.tensor([k for k, _ in here], device=policy.device)
            policy, tokens = policy.index_add(0, place, logprobs), tokens.index_copy(0, place, batch.lengths)
        return policy, tokens

    def _first(self, rows: Sequence[int]) -> Tensor:
        counts = [0, *(len(self.data.rows[i].completions) for i in rows)]
        return torch.tensor(counts, device=device()).cumsum(0)[:-1]

    def _logps(self, answers: _Answers, rows: Sequence[int]) -> Logps:
        first, samples = self._first(rows), [self.samples[i] for i in rows]
        columns = answers.policy, answers.reference, answers.batch.lengths
        policy, reference, tokens = ((column[first], column[first + 1]) for column in columns)
        p, margin, weight = self.p[rows], self.margin[rows], self.weight[rows]
        logps = Logps(*policy, *reference, *tokens, p, margin, weight, torch.full_like(p, self.level))
        if None in samples:
            return logps
        sample = first + torch.tensor(samples, device=first.device)
        sampled = dict(zip(("policy_sample", "reference_sample", "sample_tokens"), columns, strict=True))
        return replace(logps, **{name: column[sample] for name, column in sampled.items()})


class GroupObjective(_Preference):
    """A loss over groups of answers with rewards or labels."""

    def __init__(
        self, loss: GroupLoss, data: GroupRows, reference_logps: ReferenceLogps, baseline: Baseline, dtype: str
    ) -> None:
        super().__init__(data, reference_logps, baseline, dtype)
        self.loss = loss
        self.rewards, self.weights = data.flat("rewards"), data.flat("weights")

    def share(self, model: Any, rows: Sequence[int]) -> tuple[Tensor, dict[str, float]]:
        answers = self._forward(model, rows)
        groups = self._groups(answers, rows)
        values = self.loss(groups)
        return values.sum() / self.n, {k: float(v) / self.n for k, v in self._metrics(groups, values, answers).items()}

    def _groups(self, answers: _Answers, rows: Sequence[int]) -> Groups:
        where = answers.policy.device
        sizes = torch.tensor([len(self.rewards[i]) for i in rows], device=where)
        reward, weight = (
            torch.cat([torch.from_numpy(column[i]) for i in rows]).to(where) for column in (self.rewards, self.weights)
        )
        group = torch.arange(len(rows), device=where).repeat_interleave(sizes)
        lengths, level = answers.batch.lengths, torch.full_like(reward, self.level)
        return Groups(answers.policy, answers.reference, lengths, reward, weight, group, level)

    def _metrics(self, groups: Groups, values: Tensor, answers: _Answers) -> dict[str, Tensor]:
        """The sum over groups of each group's mean."""
        ratio = (groups.policy - groups.reference).detach()
        size = groups.sizes.to(ratio)
        share = 1 / size[groups.group]
        better = groups.reward > groups.sum(groups.reward * share)[groups.group]
        return {
            "loss": values.detach().sum(),
            "reward": (groups.reward * share).sum(),
            "answers": size.sum(),
            "ratio": (ratio * share).sum(),
            "better_ratio": (ratio * share * better).sum(),
            "logp": (groups.policy.detach() * share).sum(),
            "tokens": (groups.tokens * share).sum(),
            **{f"kl_{kind}": (value * share).sum() for kind, value in answers.kl.items()},
        }


def _token_weights(batch: Batch, data: TrainingRows, rows: Sequence[int], ld_alpha: float) -> Tensor:
    """(N,): 1, or `ld_alpha` for the tokens of a completion beyond the length of the shorter answer in its row."""
    if ld_alpha == 1.0:
        return torch.ones((), device=batch.target.device)
    counts = torch.tensor([len(data.rows[i].completions) for i in rows])
    shortest = torch.tensor([min(map(len, data.rows[i].completions[:2])) for i in rows])
    limit = shortest.repeat_interleave(counts).to(batch.target.device)
    starts = batch.lengths.cumsum(0) - batch.lengths
    place = torch.arange(len(batch.target), device=batch.target.device) - starts[batch.completion]
    return torch.where(place < limit[batch.completion], 1.0, ld_alpha)


def _pair_kl(answers: _Answers, chosen: Tensor) -> dict[str, Tensor]:
    """Estimates of KL(policy || reference) from both answers of each pair, as if they were samples of the policy."""
    return {f"kl_{kind}": (v[chosen] + v[chosen + 1]).sum() / 2 for kind, v in answers.kl.items()}
