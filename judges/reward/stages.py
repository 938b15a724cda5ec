"""A stage of a training: who learns what in which order, and what its steps are told by."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sparring.judges.reward.objective import Targets
from sparring.judges.reward.rows import PairRow
from sparring.judges.reward.scorers import Group, Scored
from sparring.loop.learning.batches import Plan


@dataclass(frozen=True)
class Stream:
    """Members that learn from the same batches, under one adapter where there are any."""

    members: tuple[int, ...]
    batches: Plan
    adapter: int = 0


@dataclass(frozen=True)
class Stage:
    """`streams` have one number of batches each; where there are several, they share no weight that is trained."""

    name: str
    rows: Sequence[PairRow]
    groups: Sequence[Group]  # unlabelled answers, for MetaRM
    streams: Sequence[Stream]
    lr: float

    @property
    def steps(self) -> int:
        return len(self.streams[0].batches)

    @cached_property
    def row_lengths(self) -> list[int]:
        return [row.length for row in self.rows]

    @cached_property
    def group_lengths(self) -> list[int]:
        return [len(group) * max(map(len, group)) for group in self.groups]


class Tally:
    """The metrics of one optimizer step, gathered over micro-batches and members."""

    def __init__(self, members: int) -> None:
        zero = torch.zeros(members, dtype=torch.float64)
        self.n, self.decided, self.loss, self.right, self.margin = (zero.clone() for _ in range(5))
        self._features: list[tuple[Tensor, Tensor]] = []

    def add(self, columns: Sequence[int], losses: Tensor, found: Scored, target: Targets) -> None:
        """`losses` (B, m) of the members `columns`, as they were descended."""
        columns, decided = list(columns), target.p > 0.5
        delta = (found.chosen - found.rejected).detach()[decided][:, columns].double().cpu()
        self.n[columns] += len(target.p)
        self.decided[columns] += len(delta)
        self.loss[columns] += losses.sum(0).double().cpu()
        self.right[columns] += (0.5 + 0.5 * delta.sign()).sum(0)
        self.margin[columns] += delta.sum(0)
        self._features.append((found.chosen_features[decided], found.rejected_features[decided]))

    def metrics(self) -> dict[str, float]:
        """Means over pairs, then over members. Accuracy (a tie of scores counts half) and margin are of the pairs

        with a winner; a batch without any has none of them. Of several members, each one's besides.
        """
        loss = self.loss / self.n
        found = {"loss": float(loss.mean())}
        ranked = bool((self.decided > 0).all())
        right, margin = self.right / self.decided, self.margin / self.decided
        if ranked:
            found |= {"accuracy": float(right.mean()), "margin": float(margin.mean())}
        if len(loss) > 1:
            found |= {f"loss_{i}": float(x) for i, x in enumerate(loss)}
            found |= {f"accuracy_{i}": float(x) for i, x in enumerate(right) if ranked}
        return found

    def features(self) -> tuple[Tensor, Tensor]:
        """Of the pairs with a winner, in the order of the batch: (n, F) of chosen and of rejected answers."""
        chosen, rejected = zip(*self._features, strict=True)
        return torch.cat(chosen), torch.cat(rejected)


def summary(history: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each metric over the steps that have it."""
    names = dict.fromkeys(name for step in history for name in step)
    known = {name: [step[name] for step in history if name in step] for name in names}
    return {name: sum(values) / len(values) for name, values in known.items()}
