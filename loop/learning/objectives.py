"""What an update descends: from the token log-probs of a micro-batch to its share of the loss, and its metrics."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

History = Sequence[Mapping[str, float]]


class Objective(Protocol):
    """Rows are named by number. A batch may be cut into any micro-batches: their shares add up to one loss."""

    def begin(self, model: Any, batch: Sequence[Sequence[int]], history: History) -> None:
        """Look at an optimizer batch before its gradients; `history` has the metrics of the steps before it."""
        ...

    def share(self, model: Any, rows: Sequence[int]) -> tuple[Tensor, Mapping[str, float]]:
        """The micro-batch's share of the batch's loss (a scalar with gradient), and of its metrics."""
        ...

    def stepped(self, model: Any, step: int) -> None:
        """The optimizer has taken its step number `step`, counted from 1."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What it carries from step to step, to be saved with the update's state; changed in place when read back."""
        ...


class Plain:
    """An objective that carries nothing and looks at nothing in advance: most of them."""

    def begin(self, model: Any, batch: Sequence[Sequence[int]], history: History) -> None:
        self.n = sum(map(len, batch))

    def stepped(self, model: Any, step: int) -> None:
        pass

    def tensors(self) -> dict[str, Tensor]:
        return {}
