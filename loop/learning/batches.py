"""Batches of rows of token ids, in one of two layouts, with logits only for the completions.

shared: a row is laid out as [prompt | completion 0 | completion 1 | ...]. Each completion attends to the prompt and to
itself, and its positions continue the prompt's. So every log-prob equals that of prompt + completion alone, and the
prompt is computed once. It needs a model whose layers all honour the mask.
separate: [prompt | completion], one completion per row, which any causal model computes right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparring.loop.errors import DataError
from sparring.loop.types import Layout

TokenIds = Sequence[int]


@dataclass(frozen=True)
class Row:
    """One prompt and its completions, as the token ids that were sampled."""

    prompt: TokenIds
    completions: tuple[TokenIds, ...]

    def __post_init__(self) -> None:
        if not len(self.prompt) or not all(map(len, self.completions)):
            sizes = [len(self.prompt), *map(len, self.completions)]
            raise DataError(
                f"a training row has a prompt or completion without tokens (tokens: {sizes}); expected at least one "
                "token in each. Remove it from the data"
            )

    @property
    def length(self) -> int:
        return len(self.prompt) + sum(map(len, self.completions))

    def lines(self, layout: Layout) -> tuple["Row", ...]:
        """The lines of a batch that this row takes up."""
        return (self,) if layout == "shared" else tuple(Row(self.prompt, (tokens,)) for tokens in self.completions)


@dataclass(frozen=True)
class Batch:
    """B lines padded on the right to T positions, with N tokens of S completions in total, in row order."""

    input_ids: Tensor  # (B, T)
    position_ids: Tensor | None  # (B, T); None in the layout separate, where a model counts positions itself
    attention: Tensor | None  # (B, 1, T, T) bool, True where a query may attend; None means plain causal attention
    source: Tensor  # (N,) flat position b * T + t whose output predicts the token
    target: Tensor  # (N,) the token
    completion: Tensor  # (N,) the number of the completion it belongs to
    lengths: Tensor  # (S,) tokens per completion

    def sums(self, tokens: Tensor) -> Tensor:
        """(S,) sums of (N,) token values over each completion."""
        return tokens.new_zeros(len(self.lengths)).index_add(0, self.completion, tokens)

    def to(self, device: torch.device) -> "Batch":
        moved: dict[str, Any] = {k: v if v is None else v.to(device) for k, v in vars(self).items()}
        return Batch(**moved)


def collate(rows: Sequence[Row], layout: Layout = "shared") -> Batch:
    rows = [line for row in rows for line in row.lines(layout)]
    width = max(row.length for row in rows)
    ids = np.zeros((len(rows), width), np.int64)
    positions = np.zeros((len(rows), width), np.int64)
    segment = np.full((len(rows), width), -1, np.int64)  # 0 prompt, 1.. completions, -1 padding
    source, target, lengths = [], [], []
    for b, row in enumerate(rows):
        n, end = len(row.prompt), len(row.prompt)
        ids[b, :n], positions[b, :n], segment[b, :n] = row.prompt, np.arange(n), 0
        for k, tokens in enumerate(row.completions, start=1):
            start, end = end, end + len(tokens)
            ids[b, start:end], segment[b, start:end] = tokens, k
            positions[b, start:end] = np.arange(n, n + len(tokens))
            # The first token is predicted by the prompt's last position, each other by the token before it.
            source.append(b * width + np.concatenate(([n - 1], np.arange(start, end - 1))))
            target.append(np.asarray(tokens, np.int64))
            lengths.append(len(tokens))
    tree = any(len(row.completions) > 1 for row in rows)
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(positions) if layout == "shared" else None,
        _tree_attention(torch.from_numpy(segment)) if tree else None,
        torch.from_numpy(np.concatenate(source)),
        torch.from_numpy(np.concatenate(target)),
        torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)),
        torch.tensor(lengths),
    )


def _tree_attention(segment: Tensor) -> Tensor:
    """A (B, 1, T, T) mask from (B, T) segments: causal, within a completion or from it to the prompt."""
    query, key = segment[:, :, None], segment[:, None, :]
    causal = torch.ones(segment.shape[1], segment.shape[1], dtype=torch.bool).tril()
    allowed = causal & ((key == query) | (key == 0))  # padding attends to padding: an empty mask row would give NaN
    return allowed[:, None]


Plan = list[list[list[int]]]  # optimizer batches -> micro-batches -> row numbers


def widths(rows: Sequence[Row], layout: Layout) -> tuple[list[int], list[int]]:
    """(tokens of the longest line, number of lines) of each row."""
    lines = [row.lines(layout) for row in rows]
    return [max(line.length for line in each) for each in lines], [len(each) for each in lines]


def plan(
    lengths: Sequence[int],
    lines: Sequence[int] | None = None,
    *,
    batch_size: int,
    token_budget: int,
    seed: int,
    epochs: int = 1,
) -> Plan:
    """The order of training, a pure function of its arguments, so that an update can be resumed at any step.

    Each epoch is a seeded shuffle, sorted by length within windows of 16 batches, so that batches hold rows of similar
    length. Then the batches are shuffled. A micro-batch holds at most `token_budget` padded tokens, or one row.
    """
    batches: Plan = []
    for epoch in range(epochs):
        random = np.random.default_rng([seed, epoch])
        order = random.permutation(len(lengths))
        window = 16 * batch_size
        windows = np.split(order, range(window, len(order), window))
        order = np.concatenate([part[np.argsort([lengths[i] for i in part], kind="stable")] for part in windows])
        cuts = np.split(order, range(batch_size, len(order), batch_size))
        batches += [
            micro_batches(cuts[i].tolist(), lengths, token_budget, lines) for i in random.permutation(len(cuts))
        ]
    return batches


def micro_batches(
    rows: Sequence[int], lengths: Sequence[int], token_budget: int, lines: Sequence[int] | None = None
) -> list[list[int]]:
    """Rows of similar length together. Row i takes up `lines[i]` lines (1 by default) of up to `lengths[i]` tokens."""
    groups: list[list[int]] = []
    width = count = 0
    for i in sorted(rows, key=lambda i: (lengths[i], i)):
        more = 1 if lines is None else lines[i]
        width, count = max(width, lengths[i]), count + more
        if groups and width * count <= token_budget:
            groups[-1].append(i)
        else:
            groups.append([i])
            width, count = lengths[i], more
    return groups
