"""log P(completion | prompt) under a causal language model."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sparring.loop.learning.batches import Batch, Row
from sparring.loop.learning.forward import selected_logits
from sparring.loop.learning.forward_choice import batch_for, forward_of

BLOCK = 32  # tokens whose distributions are held in float64 at a time


def completion_logprobs(model: Any, batch: Batch) -> Tensor:
    """The sum of the token log-probs of each completion, shape (S,), float32, in nats."""
    return batch.sums(token_logprobs(model, batch))


def completion_logits(model: Any, batch: Batch) -> Tensor:
    """(N, V) float32: the model's own logits at the position that predicts each completion token."""
    return selected_logits(model, batch, forward_of(model).head)


def completion_kl(policy: Any, reference: Any, rows: Sequence[Row]) -> Tensor:
    """KL(policy || reference) along each completion, shape (S,), float64, in nats, at temperature 1.

    At each token it is the KL over the whole vocabulary given the tokens before it, so no term is negative: the
    Rao-Blackwellised estimate of arXiv:2504.10637, if the policy wrote the completions.
    """
    batch = batch_for(policy, rows)
    ours, theirs = completion_logits(policy, batch), completion_logits(reference, batch_for(reference, rows))
    blocks = zip(torch.split(ours, BLOCK), torch.split(theirs, BLOCK), strict=True)
    return batch.sums(torch.cat([_kl(*block) for block in blocks]))


def _kl(ours: Tensor, theirs: Tensor) -> Tensor:
    """(N,) from (N, V) logits, in float64: a small KL is a sum of larger terms of both signs, lost in float32."""
    p, q = ours.double().log_softmax(-1), theirs.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).clamp(min=0)


def token_logprobs(model: Any, batch: Batch) -> Tensor:
    """log P of each completion token, shape (N,), float32, at temperature 1."""
    return -F.cross_entropy(completion_logits(model, batch), batch.target, reduction="none")
