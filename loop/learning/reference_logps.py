"""The reference log-probs that an update compares with, for each kind of reference."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparring.loop.hardware import autocast
from sparring.loop.learning.batches import Batch
from sparring.loop.learning.logprobs import token_logprobs
from sparring.loop.learning.options import Reference
from sparring.loop.learning.references import average, mix, row_sums
from sparring.loop.learning.training_rows import PairRows, TrainingRows


class ReferenceLogps:
    """The base is no reference: all log-probs are 0. Nothing changes with the steps of an update."""

    def tokens(self, batch: Batch, rows: Sequence[int]) -> Tensor | None:
        """(N,) log-probs of the completion tokens under the reference; None if it has none per token."""
        return None

    def sums(self, tokens: Tensor | None, weights: Tensor, batch: Batch, rows: Sequence[int]) -> Tensor:
        """(S,) weighted sums over the tokens of each completion."""
        return torch.zeros(len(batch.lengths), device=batch.target.device)

    def stepped(self, model: Any, step: int) -> None:
        """Called after each optimizer step."""

    def tensors(self) -> dict[str, Tensor]:
        """What the update's state must save."""
        return {}


def make_reference_logps(reference: Reference, data: TrainingRows, model: Any, dtype: str) -> ReferenceLogps:
    """`model` is the policy at the start of the update."""
    if reference.kind == "sync":
        return SyncedReference(model, data, dtype, reference)
    if reference.kind == "mixture":
        return MixtureReference(data, reference)
    return ReferenceLogps() if reference.kind == "none" else StoredReference(data)


class StoredReference(ReferenceLogps):
    """One reference with log-probs in the store."""

    def __init__(self, data: TrainingRows) -> None:
        self.data = data

    def tokens(self, batch: Batch, rows: Sequence[int]) -> Tensor | None:
        return self.data.reference_tokens(rows, 0, batch.target.device)

    def sums(self, tokens: Tensor | None, weights: Tensor, batch: Batch, rows: Sequence[int]) -> Tensor:
        assert tokens is not None
        return batch.sums(tokens * weights)


class MixtureReference(ReferenceLogps):
    """A mixture of references over whole completions, so it has no log-prob per token."""

    def __init__(self, data: TrainingRows, reference: Reference) -> None:
        lengths = [[len(tokens) for tokens in row.completions] for row in data.rows]
        width = max(map(len, lengths))
        padded = [[*row, *([0] * (width - len(row)))] for row in lengths]
        every = torch.stack([row_sums(each, padded) for each in zip(*data.references, strict=True)])
        self.mixed = mix(every, isinstance(data, PairRows), reference.weights, reference.clip)
        self.counts = [len(row) for row in lengths]

    def sums(self, tokens: Tensor | None, weights: Tensor, batch: Batch, rows: Sequence[int]) -> Tensor:
        return torch.cat([self.mixed[i, : self.counts[i]] for i in rows]).to(batch.target.device)


class SyncedReference(StoredReference):
    """TR-DPO, arXiv:2404.09656: the reference follows the policy, so its log-probs are computed during the update."""

    def __init__(self, model: Any, data: TrainingRows, dtype: str, reference: Reference) -> None:
        super().__init__(data)
        self.model, self.dtype, self.reference = copy.deepcopy(model).requires_grad_(False), dtype, reference

    def tokens(self, batch: Batch, rows: Sequence[int]) -> Tensor | None:
        with torch.no_grad(), autocast(self.dtype):
            return token_logprobs(self.model, batch)

    def stepped(self, model: Any, step: int) -> None:
        if step % self.reference.every == 0:
            average(model, self.model, self.reference.alpha)

    def tensors(self) -> dict[str, Tensor]:
        return {f"reference.{i}": p for i, p in enumerate(self.model.parameters())}
