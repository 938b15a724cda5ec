"""The training objective of a reward model: the terms of an optimizer step over all streams of a stage."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparring.judges.reward.losses import meta_difference
from sparring.judges.reward.model import RewardModel
from sparring.judges.reward.options import RewardTraining
from sparring.judges.reward.scorers import Scorer, seeded
from sparring.judges.reward.stages import Stage, Stream
from sparring.judges.reward.terms import Targets, contrast, moved, pair_loss
from sparring.loop.hardware import default_token_budget
from sparring.loop.learning.batches import micro_batches
from sparring.loop.learning.objectives import History, Term
from sparring.loop.types import derive_seed

START = 256  # pairs that prototypes start from
Micros = Sequence[Sequence[int]]


class RewardObjective:
    """The mean loss of each stream's batch, summed over streams (see loop.learning.objectives).

    Metrics are means over pairs, then over members. Loss and accuracy of each of several members are added. Accuracy (a
    tie of scores counts half) and margin are over the pairs with a winner; a batch without any has neither.
    """

    def __init__(self, model: RewardModel, scorer: Scorer, stage: Stage, options: RewardTraining) -> None:
        self.model, self.scorer, self.stage, self.opt = model, scorer, stage, options
        self.targets = Targets.of(stage.rows, model.device)
        self.group_lengths = [len(group) * max(map(len, group)) for group in stage.groups]
        self.budget = options.token_budget or default_token_budget()

    def losses(self, model: Any, batch: Sequence[Micros], history: History) -> Iterator[Term]:
        step = len(history)
        if step == 0:
            self._initialise()
        self._features: list[tuple[Tensor, Tensor]] = []
        streams = list(zip(self.stage.streams, batch, strict=True))
        ranked = all(bool((self._p(micros) > 0.5).any()) for micros in batch)
        if self.opt.meta:
            for stream in self.stage.streams:
                yield from self._difference(step, stream)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        with moved(parameters, self.opt.meta) if self.opt.meta else nullcontext():
            for stream, micros in streams:
                yield from self._pairs(step, stream, micros, ranked)
            for stream, micros in streams if self.opt.contrastive else ():
                yield from self._contrast(step, stream, micros)
            auxiliary = self.model.head.auxiliary()
            if auxiliary.requires_grad:
                yield auxiliary, {"auxiliary": float(auxiliary.detach())}

    def stepped(self, model: Any, step: int) -> None:
        chosen, rejected = (torch.cat(parts) for parts in zip(*self._features, strict=True))
        self.model.head.advance(chosen, rejected)

    def tensors(self) -> dict[str, Tensor]:
        return dict(self.model.head.named_buffers())

    def _pairs(self, step: int, stream: Stream, micros: Micros, ranked: bool) -> Iterator[Term]:
        columns, p = list(stream.members), self._p(micros)
        n, decided = len(p), int((p > 0.5).sum())
        for j, micro in enumerate(micros):
            with self._seeded(step, stream, j):
                scored = self.scorer.pairs(micro, stream.adapter)
            target = self.targets[micro]
            won = target.p > 0.5
            self._features.append((scored.chosen_features[won], scored.rejected_features[won]))
            losses = pair_loss(scored, target, self.opt)[:, columns] * target.weight[:, None]
            shares = {"loss": losses.detach().sum(0).double() / n}
            if ranked:
                delta = (scored.chosen - scored.rejected).detach()[won][:, columns].double()
                shares |= {"accuracy": (0.5 + 0.5 * delta.sign()).sum(0) / decided, "margin": delta.sum(0) / decided}
            yield losses.mean(1).sum() / n, self._by_member(columns, shares)

    def _by_member(self, columns: Sequence[int], shares: dict[str, Tensor]) -> dict[str, float]:
        """The shares (m,) of the members `columns` as metrics of the whole model, and of each member."""
        metrics = {name: float(values.sum()) / self.model.members for name, values in shares.items()}
        if self.model.members > 1:
            for name, values in shares.items():
                metrics |= {f"{name}_{i}": float(x) for i, x in zip(columns, values, strict=True) if name != "margin"}
        return metrics

    def _contrast(self, step: int, stream: Stream, micros: Micros) -> Iterator[Term]:
        def view(j: int, v: int) -> Tensor:
            with self._seeded(step, stream, j, v):
                return self.scorer.pooled(micros[j], stream.adapter)

        for loss, share in contrast(view, len(micros), self.opt):
            yield loss, {"contrastive": share / len(self.stage.streams)}

    def _difference(self, step: int, stream: Stream) -> Iterator[Term]:
        """MetaRM's J, the mean over a batch of groups."""
        count, members = len(self.stage.groups), list(stream.members)
        size = min(self.opt.batch_size, count)
        random = np.random.default_rng([derive_seed(self.opt.seed, self.stage.name, "groups", members), step])
        drawn = random.choice(count, size, replace=False).tolist()
        for micro in micro_batches(drawn, self.group_lengths, self.budget):
            scores = self.scorer.answers(micro, stream.adapter)
            value = torch.stack([meta_difference(s[:, members].T).mean() for s in scores]).sum() / size
            yield value, {"difference": float(value.detach()) / len(self.stage.streams)}

    def _initialise(self) -> None:
        """Start prototypes from training pairs. Those of a head that was trained before stay as they are."""
        if int(getattr(self.model.head, "step", 1)):
            return
        generator = torch.Generator().manual_seed(derive_seed(self.opt.seed, "start"))
        decided = [i for i, row in enumerate(self.stage.rows) if row.p > 0.5]
        drawn = [decided[i] for i in torch.randperm(len(decided), generator=generator)[:START].tolist()]
        lengths = [row.length for row in self.stage.rows]
        with torch.no_grad(), seeded(self.model.device, self.opt.seed, "start"):
            scored = [self.scorer.pairs(micro, 0) for micro in micro_batches(drawn, lengths, self.budget)]
        features = [(each.chosen_features, each.rejected_features) for each in scored]
        chosen, rejected = (torch.cat(parts) for parts in zip(*features, strict=True))
        self.model.head.initialise(chosen, rejected, generator)

    def _p(self, micros: Micros) -> Tensor:
        return self.targets.p[[i for micro in micros for i in micro]]

    def _seeded(self, step: int, stream: Stream, *cause: int) -> Any:
        return seeded(self.model.device, self.opt.seed, self.stage.name, stream.members, step, *cause)
