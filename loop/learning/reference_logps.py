"""The reference log-probs that an update compares with, for each kind of reference."""

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from sparring.loop.hardware import autocast
from sparring.loop.learning.batches import Batch
from sparring.loop.learning.logprobs import token_logprobs
from sparring.loop.learning.options import Reference
from sparring.loop.learning.references import mix, row_sums, sums
from sparring.loop.learning.training_rows import PairRows, TrainingRows


class ReferenceLogps(Protocol):
    def tokens(self, batch: Batch, rows: Sequence[int]) -> Tensor | None:
        """(N,) log-probs of the completion tokens under the reference; None if it has none per token."""
        ...

    def sums(self, tokens: Tensor | None, weights: Tensor, batch: Batch, rows: Sequence[int]) -> Tensor:
        """(S,) weighted sums over the tokens of each completion."""
        ...

    def stepped(self, model: Any, step: int) -> None: ...
    def tensors(self) -> dict[str, Tensor]: ...


def make_reference_logps(reference: Reference, data: TrainingRows, model: Any, dtype: str) -> ReferenceLogps:
    """`model` is the policy at the start of the update."""
    if reference.kind == "sync":
        return SyncedReference(model, data, dtype, reference)
    if reference.kind == "mixture":
        return MixtureReference(data, reference)
    return NoReference() if reference.kind == "none" else StoredReference(data)


class FixedReference:
    """A reference that stays the same during an update."""

    def stepped(self, model: Any, step: int) -> None:
        pass

    def tensors(self) -> dict[str, Tensor]:
        return {}


class StoredReference(FixedReference):
    """One reference with log-probs in the store."""

    def __init__(self, data: TrainingRows) -> None:
        self.data = data

    def tokens(self, batch: Batch, rows: Sequence[int]) -> Tensor | None:
        return self.data.reference_tokens(rows, 0, batch.target.device)

    def sums(self, tokens: Tensor | None, weights: Tensor, batch: Batch, rows: Sequence[int]) -> Tensor:
        assert tokens is not None
        return sums(tokens * weights, batch.completion, len(batch.lengths))


class NoReference(FixedReference):
    """No reference: all log-probs are 0."""

    def tokens(self, batch: Batch, rows: Sequence[int]) -> Tensor | None:
        return None

    def sums(self, tokens: Tensor | None, weights: Tensor, batch: Batch, rows: Sequence[int]) -> Tensor:
        return torch.zeros(len(batch.lengths), device=batch.target.device)


class MixtureReference(NoReference):
    """A mixture of references over whole completions, so it has no log-prob per token."""

    def __init__(self, data: TrainingRows, reference: Reference) -> None:
        lengths = [[len(tokens) for tokens in row.completions] for row in data.rows]
        width = max(map(len, lengths))
        padded = [[*row, *([0] * (width - len(row)))] for row in lengths]
        every = torch.stack(
            [row_sums([tokens[k] for tokens in data.references], padded) for k in range(len(data.references[0]))]
        )
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
            with torch.no_grad():
                for mine, new in zip(self.model.parameters(), model.parameters(), strict=True):
                    mine.lerp_(new, self.reference.alpha)

    def tensors(self) -> dict[str, Tensor]:
        return {f"reference.{i}": p for i, p in enumerate(self.model.parameters())}
