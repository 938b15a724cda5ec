"""A stage of a training: which members learn which pairs in which order."""

from collections.abc import Sequence
from dataclasses import dataclass

from sparring.judges.reward.rows import PairRow
from sparring.judges.reward.scorers import Group
from sparring.loop.learning.batches import Plan


@dataclass(frozen=True)
class Stream:
    """Members that learn from the same batches, under one adapter if there are any."""

    members: tuple[int, ...]
    batches: Plan
    adapter: int = 0


@dataclass(frozen=True)
class Stage:
    """All streams have the same number of batches. Where there are several, they share no trained weight."""

    name: str
    rows: Sequence[PairRow]
    groups: Sequence[Group]  # unlabelled answers, for MetaRM
    streams: Sequence[Stream]
    lr: float

    @property
    def batches(self) -> list[tuple[list[list[int]], ...]]:
        """Each optimizer step's micro-batches, per stream."""
        return list(zip(*(stream.batches for stream in self.streams), strict=True))
