"""The training rows of an update as token ids and numbers: the columns of store.training_rows, ready to be batched."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from sparring.loop.errors import DataError
from sparring.loop.learning.batches import Row
from sparring.loop.tokens import Rendering, Template

Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class TrainingRows:
    """Prompts with their completions. No loss looks at the first `starts[i]` tokens of the completions of row i."""

    table: pa.Table
    rows: list[Row]
    starts: list[int]

    @staticmethod
    def read(
        table: pa.Table, folder: str, *, from_divergence: bool = False, rendering: Rendering | None = None
    ) -> "TrainingRows":
        """PairRows, GroupRows, or TrainingRows for a table without pairs and rewards.

        Prompts have the tokens that the policy was given; where those were not kept, as for imported rows, they are
        rendered with the tokenizer in `folder`.

        With `from_divergence` the prompt of a row extends to where its answers first differ. The shared tokens are
        computed once, and only the tokens after them are learned (step-level DPO, arXiv:2405.00451).
        """
        prompts = _prompts(table, folder, rendering)
        answers: list[list[list[int]]] = table["token_ids"].to_pylist()
        starts = [_shared(row) if from_divergence else 0 for row in answers]
        rows = [
            Row([*prompt, *row[0][:start]], tuple(tokens[start:] for tokens in row))
            for prompt, row, start in zip(prompts, answers, starts, strict=True)
        ]
        kinds = {"p_chosen": PairRows, "rewards": GroupRows}
        kind = next((kind for column, kind in kinds.items() if column in table.column_names), TrainingRows)
        return kind(table, rows, starts)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def sampled(self) -> list[Floats]:
        """The sampler's log-probs of each row's completion tokens, one completion after the other."""
        return [self._joined(row, i) for i, row in enumerate(self.table["logprobs"].to_pylist())]

    @cached_property
    def references(self) -> list[list[Floats]]:
        """Each reference's log-probs of each row's completion tokens. Raises DataError if one is missing."""
        rows = []
        for i, references in enumerate(self.table["reference"].to_pylist()):
            if any(tokens is None for reference in references for tokens in reference):
                raise DataError(f"training row {self.table['row_id'][i]} has no reference log-probs; score it first")
            rows.append([self._joined(reference, i) for reference in references])
        return rows

    def reference_tokens(self, rows: Sequence[int], number: int, where: torch.device) -> Tensor:
        """(N,) log-probs under one reference of the completion tokens of these rows, in the order of a Batch."""
        return torch.from_numpy(np.concatenate([self.references[i][number] for i in rows])).to(where)

    def sampled_tokens(self, rows: Sequence[int], where: torch.device) -> Tensor:
        """(N,) log-probs of the same tokens as the sampler computed them."""
        return torch.from_numpy(np.concatenate([self.sampled[i] for i in rows])).to(where)

    def _joined(self, tokens: list[list[float]], row: int) -> Floats:
        start = self.starts[row]
        return np.concatenate([np.asarray(each[start:], np.float32) for each in tokens])


class PairRows(TrainingRows):
    """Pairs. The completions of a row are chosen, rejected, and the reference sample if it is neither of them."""

    def column(self, name: Literal["p_chosen", "margin", "weight"], where: torch.device) -> Tensor:
        """(B,) one value per pair."""
        return torch.from_numpy(np.array(self.table[name].to_numpy(), np.float32)).to(where)

    @cached_property
    def samples(self) -> list[int | None]:
        """The number of the completion that is the reference sample; None for a pair without one."""
        columns = (self.table[name].to_pylist() for name in ("has_sample", "sample_place"))
        return [place if has_sample else None for has_sample, place in zip(*columns, strict=True)]


class GroupRows(TrainingRows):
    """Groups of answers. The completions of a row are answers to one prompt, each with a reward and a weight."""

    def flat(self, name: Literal["rewards", "weights"]) -> list[Floats]:
        """One array per group, with one value per answer."""
        return [np.asarray(row, np.float32) for row in self.table[name].to_pylist()]

    @property
    def stopped(self) -> list[bool]:
        """Whether each answer ended by itself, one group after the other."""
        return [stopped for row in self.table["stopped"].to_pylist() for stopped in row]


def _prompts(table: pa.Table, folder: str, rendering: Rendering | None) -> list[list[int]]:
    messages = table["messages"].to_pylist()
    kept = "prompt_token_ids" in table.column_names
    given = table["prompt_token_ids"].to_pylist() if kept else [None] * len(messages)
    return [
        ids if ids is not None else Template.of(folder, rendering).prompt_ids(text)
        for ids, text in zip(given, messages, strict=True)
    ]


def _shared(answers: Sequence[Sequence[int]]) -> int:
    """The number of first tokens that all answers share, at most all but one token of the shortest."""
    shortest = min(map(len, answers))
    same = (len({row[i] for row in answers}) == 1 for i in range(shortest))
    shared = next((i for i, alike in enumerate(same) if not alike), shortest)
    return min(shared, shortest - 1)
