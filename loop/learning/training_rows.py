"""The training rows of an update as token ids and numbers: the columns of store.training_rows, ready to be batched."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from sparring.loop.errors import DataError
from sparring.loop.learning.batches import Row
from sparring.loop.tokens import Template

Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class TrainingRows:
    """Row i has a prompt and its completions; `starts[i]` counts the first tokens of each that no loss looks at."""

    table: pa.Table
    rows: list[Row]
    starts: list[int]

    @classmethod
    def read(cls, table: pa.Table, folder: str, *, from_divergence: bool = False) -> "TrainingRows":
        """`folder` has the tokenizer. With `from_divergence` a row's prompt goes on to where its answers first differ:
        they are computed once up to there, and learned from there on (step-level DPO, arXiv:2405.00451)."""
        template = Template.of(folder)
        prompts = [template.prompt_ids(text) for text in table["messages"].to_pylist()]
        answers: list[list[list[int]]] = table["token_ids"].to_pylist()
        starts = [_shared(row) if from_divergence else 0 for row in answers]
        rows = [
            Row([*prompt, *row[0][:start]], tuple(tokens[start:] for tokens in row))
            for prompt, row, start in zip(prompts, answers, starts, strict=True)
        ]
        return cls(table, rows, starts)

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str, where: torch.device) -> Tensor:
        """A numeric column, one value a row."""
        return torch.from_numpy(np.array(self.table[name].to_numpy(), np.float32)).to(where)

    def flat(self, name: str) -> list[Floats]:
        """A list column of numbers, one array a row: a value each completion."""
        return [np.asarray(row, np.float32) for row in self.table[name].to_pylist()]

    @cached_property
    def sampled(self) -> list[Floats]:
        """The sampler's log-probs of a row's completion tokens, one completion after the other."""
        return [self._joined(row, i) for i, row in enumerate(self.table["logprobs"].to_pylist())]

    @cached_property
    def references(self) -> list[list[Floats]]:
        """For each row, each reference's log-probs of its completion tokens. Raises DataError where one is missing."""
        found = []
        for i, references in enumerate(self.table["reference"].to_pylist()):
            if any(tokens is None for reference in references for tokens in reference):
                raise DataError(f"training row {self.table['row_id'][i]} has no reference log-probs; score it first")
            found.append([self._joined(reference, i) for reference in references])
        return found

    def reference_tokens(self, rows: Sequence[int], number: int, where: torch.device) -> Tensor:
        """(N,) log-probs under one reference of the completion tokens of these rows, in the order of a Batch."""
        return torch.from_numpy(np.concatenate([self.references[i][number] for i in rows])).to(where)

    def sampled_tokens(self, rows: Sequence[int], where: torch.device) -> Tensor:
        """(N,) log-probs of the same tokens as the sampler saw them."""
        return torch.from_numpy(np.concatenate([self.sampled[i] for i in rows])).to(where)

    def _joined(self, tokens: list[list[float]], row: int) -> Floats:
        start = self.starts[row]
        return np.concatenate([np.asarray(each[start:], np.float32) for each in tokens])


def _shared(answers: Sequence[Sequence[int]]) -> int:
    """How many first tokens all answers share; at least one is left of each, to be learned from."""
    shortest = min(map(len, answers))
    same = (len({row[i] for row in answers}) == 1 for i in range(shortest))
    shared = next((i for i, alike in enumerate(same) if not alike), shortest)
    return min(shared, shortest - 1)
