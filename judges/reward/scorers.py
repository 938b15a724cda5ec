"""Scores of pairs with gradients: from a pass through the backbone, or from features computed once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from sparring.judges.reward.encoding import Encoded
from sparring.judges.reward.features import Progress, features, row_key
from sparring.judges.reward.losses import divergence_mask
from sparring.judges.reward.model import RewardModel
from sparring.judges.reward.rows import PairRow
from sparring.judges.reward.token_prototypes import TokenPrototypeHead
from sparring.loop.hardware import autocast
from sparring.loop.types import derive_seed

Group = Sequence[Encoded]


@dataclass(frozen=True)
class Scored:
    """What B pairs come to. F is the size of what a head's prototypes are like (RewardModel.head_features)."""

    chosen: Tensor  # (B, M) raw scores
    rejected: Tensor  # (B, M)
    chosen_features: Tensor  # (B, F), without gradient
    rejected_features: Tensor  # (B, F), without gradient
    logprobs: Tensor | None = None  # (B,): log P of the chosen answer under the kept language-model head
    tokens: tuple[Tensor, Tensor, Tensor] | None = None  # rewards (B, T) of both, and where they are compared


class Scorer(Protocol):
    """`rows` and `groups` are numbers of pairs and of unlabelled groups; `adapter` is one where there are any."""

    def pairs(self, rows: Sequence[int], adapter: int) -> Scored: ...

    def pooled(self, rows: Sequence[int], adapter: int) -> Tensor:
        """(2B, D): features of the chosen answers, then of the rejected."""
        ...

    def answers(self, groups: Sequence[int], adapter: int) -> list[Tensor]:
        """Scores (k, M) of each group's k answers."""
        ...


class LiveScorer:
    """Through the backbone, which may learn."""

    def __init__(self, model: RewardModel, rows: Sequence[PairRow], groups: Sequence[Group], dtype: str) -> None:
        self.model, self.rows, self.groups, self.dtype = model, rows, groups, dtype

    def pairs(self, rows: Sequence[int], adapter: int) -> Scored:
        batch, n = self.model.collate(self._both(rows)), len(rows)
        ids, mask, types = batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]
        with autocast(self.dtype):
            tokens = self.model.tokens(**batch, adapter=adapter)
        found = self.model.pool(tokens, mask, types)
        scores = self.model.score(found)
        logprobs, rewards = None, None
        if self.model.lm_head is not None:
            with autocast(self.dtype):
                logprobs = self.model.answer_logprobs(tokens[:n], ids[:n], types[:n])
        if isinstance(self.model.head, TokenPrototypeHead):
            label = torch.arange(2 * n, device=tokens.device) < n
            given = self.model.head.token_rewards(tokens, mask, types, label)
            rewards = given[:n], given[n:], divergence_mask(ids[:n], ids[n:], mask[:n], mask[n:])
            found = self.model.head.sequences(tokens, mask, types)
        found = found.detach()
        return Scored(scores[:n], scores[n:], found[:n], found[n:], logprobs, rewards)

    def pooled(self, rows: Sequence[int], adapter: int) -> Tensor:
        with autocast(self.dtype):
            return self.model.features(**self.model.collate(self._both(rows)), adapter=adapter)

    def answers(self, groups: Sequence[int], adapter: int) -> list[Tensor]:
        answers = list(chain.from_iterable(self.groups[g] for g in groups))
        with autocast(self.dtype):
            found = self.model.features(**self.model.collate(answers), adapter=adapter)
        return list(torch.split(self.model.score(found), [len(self.groups[g]) for g in groups]))

    def _both(self, rows: Sequence[int]) -> list[Encoded]:
        return [*(self.rows[i].chosen for i in rows), *(self.rows[i].rejected for i in rows)]


class CachedScorer:
    """From the features of a frozen backbone (see judges.reward.features): only the head is computed.

    Features are divided by their standard deviations, so that their squares add up to about 1: hidden states have a few
    dimensions that are many times as wide as the rest, on which a head would spend its steps, and a fresh head would
    start from loud noise. `Head.absorb` puts the scale into the head afterwards.
    """

    def __init__(
        self,
        model: RewardModel,
        rows: Sequence[PairRow],
        groups: Sequence[Group],
        dtype: str,
        token_budget: int | None,
        cache: Path | None,
        progress: Progress,
    ) -> None:
        answers = [*chain.from_iterable((row.chosen, row.rejected) for row in rows), *chain.from_iterable(groups)]
        distinct = {row_key(answer): answer for answer in answers}
        self.model = model
        found = features(model, list(distinct.values()), cache, progress, dtype=dtype, token_budget=token_budget)
        spread = found.std(0).clamp_min(1e-6) if len(found) > 1 else torch.ones_like(found[0])
        self.scale: Tensor = spread * found.shape[1] ** 0.5
        self.features: Tensor = found / self.scale
        number = {key: i for i, key in enumerate(distinct)}
        self.places = torch.tensor([[number[row_key(row.chosen)], number[row_key(row.rejected)]] for row in rows])
        self.groups = [torch.tensor([number[row_key(answer)] for answer in group]) for group in groups]

    def pairs(self, rows: Sequence[int], adapter: int) -> Scored:
        found, n = self.pooled(rows, adapter), len(rows)
        scores = self.model.score(found)
        return Scored(scores[:n], scores[n:], found[:n], found[n:])

    def pooled(self, rows: Sequence[int], adapter: int) -> Tensor:
        return self.features[self.places[list(rows)].T.reshape(-1)]

    def answers(self, groups: Sequence[int], adapter: int) -> list[Tensor]:
        return [self.model.score(self.features[self.groups[g]]) for g in groups]


@contextmanager
def seeded(where: torch.device, *cause: object) -> Iterator[None]:
    """Dropout drawn from a cause, so that it is the same when a training is resumed."""
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        # Not torch.manual_seed, which notes a stack trace for each call until a GPU is in use.
        torch.default_generator.manual_seed(derive_seed(*cause))
        if where.type == "cuda":
            torch.cuda.manual_seed(derive_seed(*cause))
        yield


def start_learning(model: RewardModel, dropout: float) -> None:
    """Training mode with one dropout for the whole backbone, whatever it was trained with; adapters keep theirs."""
    model.train()
    for name, module in model.backbone.named_modules():
        if ".lora_" in name:
            continue
        if isinstance(module, nn.Dropout):
            module.p = dropout
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = dropout
