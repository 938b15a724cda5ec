"""Batches of encoded answers, and reductions of a backbone's hidden states."""

from collections.abc import Sequence
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparring.judges.reward.encoding import Encoded
from sparring.judges.reward.facts import Pooling
from sparring.loop.errors import ConfigError


class Batch(TypedDict):
    """Each (B, T), padded on the right. token_type_ids are 1 in the answer and 0 elsewhere."""

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor


def collate(rows: Sequence[Encoded], pad: int, device: torch.device) -> Batch:
    width = max(map(len, rows))
    ids = [[*r.ids, *[pad] * (width - len(r))] for r in rows]
    mask = [[1] * len(r) + [0] * (width - len(r)) for r in rows]
    types = [[0] * r.answer_start + [1] * (len(r) - r.answer_start) + [0] * (width - len(r)) for r in rows]
    ids_, mask_, types_ = (torch.tensor(values, device=device) for values in (ids, mask, types))
    return {"input_ids": ids_, "attention_mask": mask_, "token_type_ids": types_}


def pool(kind: Pooling, tokens: Tensor, mask: Tensor, token_type_ids: Tensor | None) -> Tensor:
    """(B, T, D) to (B, D): the last token in the mask (B, T), or the mean of all, or of the answer's."""
    if kind == "last":
        places = torch.arange(mask.shape[1], device=mask.device)
        return tokens[torch.arange(len(tokens), device=tokens.device), (places * mask).argmax(1)]
    if kind == "answer_mean":
        if token_type_ids is None:
            raise ConfigError("pooling 'answer_mean' needs token_type_ids, which mark the answer")
        mask = mask * token_type_ids
    inside = mask[:, :, None] == 1
    return torch.where(inside, tokens, 0).sum(1) / inside.sum(1).clamp(min=1)


def answer_logprobs(
    lm_head: nn.Module, tokens: Tensor, input_ids: Tensor, token_type_ids: Tensor, cap: float | None
) -> Tensor:
    """(B,): log P of each answer, in nats, from hidden states (B, T, D); `cap` is the model's soft cap of logits."""
    answer = token_type_ids[:, 1:] == 1
    logits = lm_head(tokens[:, :-1][answer]).float()
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    logprobs = -F.cross_entropy(logits, input_ids[:, 1:][answer], reduction="none")
    return torch.zeros(len(tokens), device=tokens.device).index_add(0, answer.nonzero()[:, 0], logprobs)
