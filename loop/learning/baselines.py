"""Baselines that pointwise losses subtract from a log-ratio: one number per batch, in nats, without a gradient."""

from collections.abc import Sequence
from typing import Any

import torch

from sparring.loop.errors import ConfigError
from sparring.loop.hardware import autocast
from sparring.loop.learning.batches import Row
from sparring.loop.learning.forward_choice import batch_for
from sparring.loop.learning.logprobs import completion_logprobs
from sparring.loop.learning.objectives import History
from sparring.loop.learning.training_rows import TrainingRows


class Baseline:
    """The base is no baseline."""

    def of(self, model: Any, batch: Sequence[Sequence[int]], history: History) -> float:
        return 0.0


class Running(Baseline):
    """BCO, arXiv:2404.04656: the mean log-ratio of both kinds of answers over the update's earlier steps."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def of(self, model: Any, batch: Sequence[Sequence[int]], history: History) -> float:
        means = [sum(step[name] for name in self.names) / len(self.names) for step in history]
        return sum(means) / len(means) if means else 0.0


class Mismatched(Baseline):
    """KTO's z0, section 4.2 of arXiv:2402.01306: max(0, mean log-ratio) of answers to another prompt.

    The answers are those of the next row, whatever batch it is in, so that a batch of one row has some. The mean is
    over the whole optimizer batch, so it does not depend on how the batch is cut.
    """

    def __init__(self, data: TrainingRows, reference: Any, micro_batches: Sequence[Sequence[int]], dtype: str) -> None:
        """`reference` is the reference model, or None without one. It is not kept."""
        n = len(data)
        if n < 2:
            raise ConfigError(
                f"this loss needs answers to another prompt, and the round has {n} rows; use more prompts"
            )
        self.rows = [Row(row.prompt, data.rows[(i + 1) % n].completions) for i, row in enumerate(data.rows)]
        self.dtype = dtype
        self.reference = torch.zeros(n)
        if reference is not None:
            for micro in micro_batches:
                self.reference[list(micro)] = self._means(reference, micro)

    def of(self, model: Any, batch: Sequence[Sequence[int]], history: History) -> float:
        ratios = torch.cat([self._means(model, micro) - self.reference[list(micro)] for micro in batch])
        return max(0.0, float(ratios.mean()))

    def _means(self, model: Any, rows: Sequence[int]) -> torch.Tensor:
        """(len(rows),) mean log P of each row's mismatched completions."""
        batch = batch_for(model, [self.rows[i] for i in rows])
        with torch.no_grad(), autocast(self.dtype):
            values = completion_logprobs(model, batch).cpu()
        sizes = [len(self.rows[i].completions) for i in rows]
        return torch.stack([part.mean() for part in torch.split(values, sizes)])
