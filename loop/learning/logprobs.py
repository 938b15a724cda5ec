"""log P(completion | prompt) under a causal language model."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from sparring.loop.learning.batches import Batch
from sparring.loop.learning.forward import selected_logits
from sparring.loop.learning.forward_choice import forward_of


def completion_logprobs(model: Any, batch: Batch) -> Tensor:
    """The sum of the token log-probs of each completion, shape (S,), float32, in nats."""
    return batch.sums(token_logprobs(model, batch))


def completion_logits(model: Any, batch: Batch) -> Tensor:
    """(N, V) float32: the model's own logits at the position that predicts each completion token."""
    return selected_logits(model, batch, forward_of(model).head)


def token_logprobs(model: Any, batch: Batch) -> Tensor:
    """log P of each completion token, shape (N,), float32, at temperature 1."""
    return -F.cross_entropy(completion_logits(model, batch), batch.target, reduction="none")
