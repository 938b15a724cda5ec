"""The head of a third party's reward model, found among its weights by shape."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from sparring.loop.errors import DataError
from sparring.loop.learning.checkpoint import weight_files


def labels(folder: Path, config: Any) -> int:
    """The number of scores that the classification in `folder` gives, from the shape of its head's weights.

    One, if the folder has no such weights: they are missed when it is loaded.
    """
    from transformers import AutoModelForSequenceClassification

    one, two = (_shapes(AutoModelForSequenceClassification, _with_labels(config, n)) for n in (1, 2))
    heads = {name for name, shape in one.items() if shape != two[name]}
    return next((shape[0] for _, name, shape in _weights(folder) if name in heads), 1)


def value_head(folder: Path, config: Any) -> tuple[Tensor, Tensor | None]:
    """The one map to a scalar beside the backbone: TRL's `v_head.summary`, a `score`, a `regression_head`, ...

    Raises DataError if there is none, or more than one.
    """
    from transformers import AutoModel

    size = int(config.get_text_config().hidden_size)
    backbone = _shapes(AutoModel, config)  # a gate of a mixture of experts is a map to a scalar too
    heads = {}
    for path, name, shape in _weights(folder):
        if shape == [1, size] and name.endswith(".weight") and not _among(name, backbone):
            with safe_open(path, "pt") as file:
                bias = name.removesuffix("weight") + "bias"
                heads[name] = file.get_tensor(name), file.get_tensor(bias) if bias in file.keys() else None  # noqa: SIM118
    if len(heads) != 1:
        raise DataError(
            f"{folder} has {len(heads)} scalar heads ({some(sorted(heads)) or 'none'}); expected a reward model: a "
            f"*ForSequenceClassification with one label, or weights with one tensor of shape [1, {size}]"
        )
    return next(iter(heads.values()))


def some(names: Iterable[str]) -> str:
    """The first few of some names."""
    names = list(names)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _weights(folder: Path) -> Iterator[tuple[Path, str, list[int]]]:
    """(file, name, shape) of each weight."""
    for path in weight_files(folder):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  (safe_open is no mapping)
                yield path, name, file.get_slice(name).get_shape()


def _shapes(auto: Any, config: Any) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: weight.shape for name, weight in auto.from_config(config).state_dict().items()}


def _with_labels(config: Any, count: int) -> Any:
    return type(config).from_dict(config.to_dict() | {"id2label": {i: str(i) for i in range(count)}})


def _among(name: str, backbone: Iterable[str]) -> bool:
    return any(name == own or name.endswith("." + own) for own in backbone)
