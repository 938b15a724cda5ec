"""The objective of an update: from the token log-probs of a micro-batch to its share of the loss and the metrics."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

History = Sequence[Mapping[str, float]]


class Objective(Protocol):
    """A loss over rows, named by number. A batch may be cut into any micro-batches; their shares add up to its loss."""

    def begin(self, model: Any, batch: Sequence[Sequence[int]], history: History) -> None:
        """Look at an optimizer batch before its gradients. `history` has the metrics of the steps before it."""
        ...

    def share(self, model: Any, rows: Sequence[int]) -> tuple[Tensor, Mapping[str, float]]:
        """The micro-batch's share of the batch's loss (a scalar with gradient) and of its metrics."""
        ...

    def stepped(self, model: Any, step: int) -> None:
        """Called after the optimizer's step number `step`, counted from 1."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """The tensors carried from step to step. They are saved with the update's state and restored in place."""
        ...


class Plain:
    """An objective that carries no tensors and only counts the rows in advance, like most."""

    def begin(self, model: Any, batch: Sequence[Sequence[int]], history: History) -> None:
        self.n = sum(map(len, batch))

    def stepped(self, model: Any, step: int) -> None:
        pass

    def tensors(self) -> dict[str, Tensor]:
        return {}
