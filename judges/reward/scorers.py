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
    """The scores of B pairs. F is the width of the head's examples (see Head)."""

    chosen: Tensor  # (B, M) raw scores
    rejected: Tensor  # (B, M)
    chosen_features: Tensor  # (B, F), without gradient
    rejected_features: Tensor  # (B, F), without gradient
    logprobs: Tensor | None = None  # (B,): log P of the chosen answer under the kept language-model head
    tokens: tuple[Tensor, Tensor, Tensor] | None = None  # rewards (B, T) of both, and the mask of places to compare


class Scorer(Protocol):
    """`rows` and `groups` are indices of pairs and of unlabelled groups. `adapter` is used if there are any."""

    def pairs(self, rows: Sequence[int], adapter: int) -> Scored: ...

    def pooled(self, rows: Sequence[int], adapter: int) -> Tensor:
        """(2B, D): features of the chosen answers, then of the rejected."""
        ...

    def answers(self, groups: Sequence[int], adapter: int) -> list[Tensor]:
        """Scores (k, M) of each group's k answers."""
        ...


class LiveScorer:
    """Scores through the backbone, which may learn."""

    def __init__(self, model: RewardModel, rows: Sequence[PairRow], groups: Sequence[Group], dtype: str) -> None:
        self.model, self.rows, self.groups, self.dtype = model, rows, groups, dtype

    def pairs(self, rows: Sequence[int], adapter: int) -> Scored:
        batch, n = self.model.collate(self._both(rows)), len(rows)
        ids, mask, types = batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]
        with autocast(self.dtype):
            tokens = self.model.tokens(**batch, adapter=adapter)
        pooled = self.model.pool(tokens, mask, types)
        scores = self.model.score(pooled)
        logprobs, rewards = None, None
        if self.model.lm_head is not None:
            with autocast(self.dtype):
                logprobs = self.model.answer_logprobs(tokens[:n], ids[:n], types[:n])
        if isinstance(self.model.head, TokenPrototypeHead):
            label = torch.arange(2 * n, device=tokens.device) < n
            token_rewards = self.model.head.token_rewards(tokens, mask, types, label)
            rewards = token_rewards[:n], token_rewards[n:], divergence_mask(ids[:n], ids[n:], mask[:n], mask[n:])
            pooled = self.model.head.sequences(tokens, mask, types)
        pooled = pooled.detach()
        return Scored(scores[:n], scores[n:], pooled[:n], pooled[n:], logprobs, rewards)

    def pooled(self, rows: Sequence[int], adapter: int) -> Tensor:
        with autocast(self.dtype):
            return self.model.features(**self.model.collate(self._both(rows)), adapter=adapter)

    def answers(self, groups: Sequence[int], adapter: int) -> list[Tensor]:
        answers = list(chain.from_iterable(self.groups[g] for g in groups))
        with autocast(self.dtype):
            pooled = self.model.features(**self.model.collate(answers), adapter=adapter)
        return list(torch.split(self.model.score(pooled), [len(self.groups[g]) for g in groups]))

    def _both(self, rows: Sequence[int]) -> list[Encoded]:
        return [*(self.rows[i].chosen for i in rows), *(self.rows[i].rejected for i in rows)]


class CachedScorer:
    """Scores from the features of a frozen backbone (see judges.reward.features): only the head is computed.

    Features are divided by their standard deviations, so that their squares add up to about 1. Hidden states have a few
    dimensions that are many times as wide as the rest: a head would spend its steps on them, and a fresh head would
    start from large noise. `Head.absorb` moves the scale into the head afterwards.
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
        raw = features(model, list(distinct.values()), cache, progress, dtype=dtype, token_budget=token_budget)
        spread = raw.std(0).clamp_min(1e-6) if len(raw) > 1 else torch.ones_like(raw[0])
        self.scale: Tensor = spread * raw.shape[1] ** 0.5
        self.features: Tensor = raw / self.scale
        number = {key: i for i, key in enumerate(distinct)}
        self.places = torch.tensor([[number[row_key(row.chosen)], number[row_key(row.rejected)]] for row in rows])
        self.groups = [torch.tensor([number[row_key(answer)] for answer in group]) for group in groups]

    def pairs(self, rows: Sequence[int], adapter: int) -> Scored:
        pooled, n = self.pooled(rows, adapter), len(rows)
        scores = self.model.score(pooled)
        return Scored(scores[:n], scores[n:], pooled[:n], pooled[n:])

    def pooled(self, rows: Sequence[int], adapter: int) -> Tensor:
        return self.features[self.places[list(rows)].T.reshape(-1)]

    def answers(self, groups: Sequence[int], adapter: int) -> list[Tensor]:
        return [self.model.score(self.features[self.groups[g]]) for g in groups]


@contextmanager
def seeded(where: torch.device, *cause: object) -> Iterator[None]:
    """Seed dropout from a cause, so that it is the same in a resumed training."""
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        # Not torch.manual_seed, which records a stack trace per call until a GPU is in use.
        torch.default_generator.manual_seed(derive_seed(*cause))
        if where.type == "cuda":
            torch.cuda.manual_seed(derive_seed(*cause))
        yield


def start_learning(model: RewardModel, dropout: float) -> None:
    """Set training mode with one dropout rate for the whole backbone; adapters keep their own."""
    model.train()
    for name, module in model.backbone.named_modules():
        if ".lora_" in name:
            continue
        if isinstance(module, nn.Dropout):
            module.p = dropout
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = dropout
