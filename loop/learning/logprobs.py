"""log P(completion | prompt) under a causal language model."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from sparring.loop.learning.batches import Batch
from sparring.loop.learning.forward import completion_logits


def completion_logprobs(model: Any, batch: Batch) -> Tensor:
    """The sum of the token log-probs of each completion, shape (S,), float32, in nats."""
    return batch.sums(token_logprobs(model, batch))


def token_logprobs(model: Any, batch: Batch) -> Tensor:
    """log P of each completion token, shape (N,), float32, at temperature 1."""
    return -F.cross_entropy(completion_logits(model, batch), batch.target, reduction="none")
