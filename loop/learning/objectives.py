"""The objective of a training: the loss of an optimizer batch as a series of terms, with their metrics."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from torch import Tensor

History = Sequence[Mapping[str, float]]
Term = tuple[Tensor, Mapping[str, float]]  # a scalar with gradient, and its share of the batch's metrics
B = TypeVar("B", contravariant=True)


class Objective(Protocol[B]):
    """`B` is an optimizer batch. However it is cut into micro-batches, its terms add up to the same loss."""

    def losses(self, model: Any, batch: B, history: History) -> Iterator[Term]:
        """The terms of the batch's loss. The gradient of each is taken before the next is computed.

        Metrics include "loss". `history` has the metrics of the earlier steps.
        """
        ...

    def stepped(self, model: Any, step: int) -> None:
        """Called after each optimizer step; `step` counts from 1."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """The tensors carried from step to step. They are saved with the update's state and loaded in place."""
        ...


class Plain(ABC):
    """An objective with one term per micro-batch of row numbers, and no tensors to carry."""

    def losses(self, model: Any, batch: Sequence[Sequence[int]], history: History) -> Iterator[Term]:
        self.begin(model, batch, history)
        for micro in batch:
            yield self.share(model, micro)

    def begin(self, model: Any, batch: Sequence[Sequence[int]], history: History) -> None:
        """Look at the whole batch before its first term."""
        self.n = sum(map(len, batch))

    @abstractmethod
    def share(self, model: Any, rows: Sequence[int]) -> Term:
        """The micro-batch's share of the loss and of its metrics."""

    def stepped(self, model: Any, step: int) -> None:  # noqa: B027
        pass

    def tensors(self) -> dict[str, Tensor]:
        return {}
