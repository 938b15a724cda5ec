"""A batch through a model, in one of the ways in which its architecture can be computed."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparring.loop.learning.batches import Batch
from sparring.loop.types import Head, Layout


@dataclass(frozen=True)
class Forward:
    """`attention`: transformers' implementation. `layout`: of completions in a batch, see loop.learning.batches.

    `head`: the logits are projected at the positions of completion tokens, or at all and then selected.
    """

    attention: str
    layout: Layout
    head: Head = "positions"


def inputs_of(model: Any, batch: Batch) -> dict[str, Any]:
    """The arguments of a model's forward for a batch."""
    if batch.position_ids is None:  # padded on the right, so that a causal model needs neither mask nor positions
        return {"input_ids": batch.input_ids, "use_cache": False}
    mask = None if batch.attention is None else _masks(model, batch)
    return {
        "input_ids": batch.input_ids, "attention_mask": mask, "position_ids": batch.position_ids, "use_cache": False
    }  # fmt: skip


def selected_logits(model: Any, batch: Batch, head: Head) -> Tensor:
    """(N, V) float32: the model's own logits at the position that predicts each completion token.

    With head "positions" only those are projected: for a small model, projecting all would be most of the cost and
    nearly all of the memory. What the model does to its logits (scales, caps) is its own code in any case.
    """
    if head == "all":
        return _logits(model(**inputs_of(model, batch))).flatten(0, 1)[batch.source].float()

    def select(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0].flatten(0, 1)[batch.source][None], *args[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        return _logits(model(**inputs_of(model, batch)))[0].float()
    finally:
        hook.remove()


def completion_hidden(backbone: Any, batch: Batch) -> Tensor:
    """(N, D): the last hidden state at the position that predicts each completion token."""
    hidden: Tensor = backbone(**inputs_of(backbone, batch)).last_hidden_state  # (B, T, D)
    return hidden.flatten(0, 1)[batch.source]


def _logits(output: Any) -> Tensor:
    logits: Tensor = output.logits
    return logits


def _masks(model: Any, batch: Batch) -> Any:
    """The tree mask as the model's layers take it: with their sliding window, and added to the scores in eager code."""
    assert batch.attention is not None and batch.position_ids is not None
    text, full = model.config.get_text_config(), batch.attention
    window = window_of(text)
    if window is None:
        return _as_taken(model, full)
    near = (batch.position_ids[:, :, None] - batch.position_ids[:, None, :] < window)[:, None]
    masks = {"full_attention": _as_taken(model, full), "sliding_attention": _as_taken(model, full & near)}
    return masks if layer_types(text) else masks["sliding_attention"]


def _as_taken(model: Any, mask: Tensor) -> Tensor:
    if attention_of(model) != "eager":
        return mask
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, torch.finfo(torch.float32).min)


def window_of(text: Any) -> int | None:
    window = getattr(text, "sliding_window", None)
    used = getattr(text, "use_sliding_window", True) is not False
    types = layer_types(text)
    return int(window) if window and used and (not types or "sliding_attention" in types) else None


def layer_types(text: Any) -> set[str]:
    return set(getattr(text, "layer_types", None) or ())


def attention_of(model: Any) -> str:
    return str(model.config._attn_implementation)
