"""How a model is computed: its attention, and where completions lie in a batch. Decided once, confirmed by its forward.

A row that shares its prompt among completions needs a model whose every layer honours the mask; one that has a layer
with a state (SSM, convolution, linear attention) gets each completion in a row of its own. What is decided from the
config is confirmed on a few tokens: log-probs must equal those of the model's own forward, one completion at a time.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sparring.loop.errors import ConfigError
from sparring.loop.learning.batches import Batch, Row, collate
from sparring.loop.learning.forward import (
    Forward,
    attention_of,
    completion_hidden,
    layer_types,
    selected_logits,
    window_of,
)
from sparring.loop.types import Head, Layout

# Of the spread of the log-probs: rounding in float32 makes 1e-6 to 1e-4 of it, a mask that is ignored 0.01 to 2.
TOLERANCE = 1e-3
SHRUNK = 8  # tokens: the sliding window during the check, so that a short text is longer than it
KNOWN_LAYERS = {"full_attention", "sliding_attention"}
LOCAL = re.compile("window|chunk|index_topk")  # in the names of settings that limit how far a layer looks back
HARMLESS = re.compile("_?sliding_window(_pattern)?|use_sliding_window|max_window_layers|chunk_size_feed_forward")
ATTRIBUTE = "sparring_forward"
# What a model's code raises for inputs in a form that it does not take.
FAILURES = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, AssertionError)


VOLATILE = ("_name_or_path", "dtype", "torch_dtype", "transformers_version", "architectures")
_decided: dict[str, Forward] = {}  # by hash: the checkpoints of a run are computed in one way


def forward_of(model: Any) -> Forward:
    """How this model is computed; decided when it is first asked for. Raises ConfigError for an unsupported model."""
    decided: Forward | None = getattr(model, ATTRIBUTE, None)
    if decided is None:
        key = config_sha256(model)
        decided = _decided.get(key) or decide(model)
        settle(key, decided)
        if decided.attention != attention_of(model):
            model.set_attn_implementation(decided.attention)
        setattr(model, ATTRIBUTE, decided)
    return decided


def settle(config: str, forward: Forward) -> None:
    """Have later models with this hash computed like this, e.g. as it was decided when their run began."""
    _decided[config] = forward


def batch_for(model: Any, rows: Sequence[Row]) -> Batch:
    """The rows as a batch in the model's layout, on its device."""
    return collate(rows, forward_of(model).layout).to(next(model.parameters()).device)


def config_sha256(model: Any) -> str:
    """One hash for all models that are computed in the same way: of the class and its config."""
    config = {k: v for k, v in model.config.to_dict().items() if k not in VOLATILE}
    text = json.dumps([type(model).__name__, config], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def may_share(config: Any) -> bool:
    """Whether, by its config, every layer of a model may honour a mask that is given to it."""
    text = config.get_text_config()
    if layer_types(text) - KNOWN_LAYERS:
        return False
    limits = (k for k, v in text.to_dict().items() if LOCAL.search(str(k)) and isinstance(v, int) and v)
    return all(HARMLESS.fullmatch(name) for name in limits)


def decide(model: Any) -> Forward:
    """The fastest way that equals the model's own forward. Raises ConfigError, by name, if there is none."""
    rows = _rows(model.config)
    with torch.no_grad(), _small_window(model.config.get_text_config()):
        try:
            attention = _truest_attention(model, rows)
            own = _own(model, rows)
        except FAILURES as error:
            raise ConfigError(
                f"{type(model).__name__} is not supported: its own forward fails on token ids alone "
                f"({_first_line(error)}). Expected a causal language model of transformers; choose another policy.model"
            ) from error
        layouts: tuple[Layout, ...] = ("shared", "separate") if may_share(model.config) else ("separate",)
        tried: dict[str, str] = {}
        for layout in layouts:
            for head in _heads(model):
                apart = _apart(model, rows, own, layout, head)
                if isinstance(apart, float) and apart <= TOLERANCE * _spread(own):
                    return Forward(attention, layout, head)
                tried[f"{layout}, {head}"] = apart if isinstance(apart, str) else f"{apart:.3g} nats per token"
    told = "; ".join(f"{way}: {what}" for way, what in tried.items())
    raise ConfigError(
        f"{type(model).__name__} is not supported: in no way of computing its log-probs do they equal its own forward "
        f"({told}). Expected a causal language model of transformers; choose another policy.model"
    )


def _heads(model: Any) -> tuple[Head, ...]:
    return ("positions", "all") if model.can_generate() and model.get_output_embeddings() is not None else ("all",)


def _apart(model: Any, rows: Sequence[Row], own: Tensor, layout: Layout, head: Head) -> float | str:
    """The mean absolute difference to the own forward in nats per token, or the error that a way ends in."""
    batch = collate(rows, layout).to(own.device)
    try:
        found = _values(model, batch, head)
    except FAILURES as error:
        return _first_line(error)
    return float((found - own).abs().mean())


def _first_line(error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        raise error  # says nothing of the model's code
    return f"{type(error).__name__}: {error}".splitlines()[0][:120]


def _spread(values: Tensor) -> float:
    return float(values.std())


def _own(model: Any, rows: Sequence[Row]) -> Tensor:
    """(M,) by the model's own forward on each prompt with one completion, without padding, mask or positions."""
    where = next(model.parameters()).device
    alone = [Row(row.prompt, (tokens,)) for row in rows for tokens in row.completions]
    head: Head = "all"
    return torch.cat([_values(model, collate([row], "separate").to(where), head) for row in alone])


def _values(model: Any, batch: Batch, head: Head) -> Tensor:
    """What is compared: log-probs of the completion tokens; of a backbone without a head, a sum of hidden states."""
    if not model.can_generate():
        hidden = completion_hidden(model, batch).float()
        return (hidden / hidden.abs().mean(-1, keepdim=True)).flatten()
    return selected_logits(model, batch, head).log_softmax(-1).gather(1, batch.target[:, None])[:, 0]


def _truest_attention(model: Any, rows: Sequence[Row]) -> str:
    """The attention that transformers chose, unless its eager code, the reference of all, gives something else."""
    chosen = attention_of(model)
    if chosen == "eager":
        return chosen
    fast = _own(model, rows)
    try:
        model.set_attn_implementation("eager")
        apart = float((_own(model, rows) - fast).abs().mean())
    except FAILURES:  # it has no eager code
        apart = 0.0
    if apart > TOLERANCE * _spread(fast):
        return "eager"
    model.set_attn_implementation(chosen)
    return chosen


@contextmanager
def _small_window(text: Any) -> Iterator[None]:
    """A context in which the sliding window is so small that the check's rows reach beyond it."""
    window = window_of(text)
    if window is None:
        yield
        return
    text.sliding_window = min(window, SHRUNK)
    try:
        yield
    finally:
        text.sliding_window = window


def _rows(config: Any) -> list[Row]:
    """Two prompts with two completions each, of different lengths, from ids without a special meaning."""
    special = _special(config.to_dict())
    size = int(config.get_text_config().vocab_size)
    plain = [i for i in (7919 * k % size for k in range(1, 8 * 64)) if i not in special][:160]
    cuts = iter(range(0, len(plain), 20))

    def part(length: int) -> list[int]:
        start = next(cuts)
        return plain[start : start + length]

    return [Row(part(18), (part(13), part(9))), Row(part(7), (part(16), part(20)))]


def _special(config: Mapping[str, Any]) -> set[int]:
    """The token ids that a config names, e.g. of an image or of the end, also in its nested configs."""
    found: set[int] = set()
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= _special(value)
        elif str(name).endswith(("token_id", "token_index", "token_ids")):
            found |= {int(v) for v in (value if isinstance(value, list) else [value]) if isinstance(v, int)}
    return found
