"""log P(completion | prompt) under a causal language model."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sparring.loop.learning.batches import Batch


def completion_logprobs(model: Any, batch: Batch) -> Tensor:
    """The sum of the token log-probs of each completion, shape (S,), float32, in nats."""
    return batch.sums(token_logprobs(model, batch))


def token_logprobs(model: Any, batch: Batch) -> Tensor:
    """log P of each completion token, shape (N,), float32, at temperature 1.

    The vocabulary is projected only at the N positions that predict a completion token. For a small model, projecting
    all positions would be most of the cost and nearly all of the memory.
    """
    logits = model.get_output_embeddings()(predicting(model.base_model, batch))  # (N, V)
    cap = getattr(model.config, "final_logit_softcapping", None)
    logits = logits.float() if cap is None else cap * torch.tanh(logits.float() / cap)
    return -F.cross_entropy(logits, batch.target, reduction="none")


def predicting(backbone: Any, batch: Batch) -> Tensor:
    """(N, D): the last hidden state at the position that predicts each completion token."""
    hidden: Tensor = backbone(
        input_ids=batch.input_ids, attention_mask=batch.attention, position_ids=batch.position_ids, use_cache=False
    ).last_hidden_state  # (B, T, D)
    return hidden.flatten(0, 1)[batch.source]
