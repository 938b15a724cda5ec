"""The saved state of an update in progress: weights, optimizer, position. Reading safetensors runs no code."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from sparring.loop.disk import writing
from sparring.loop.errors import StepError

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
Parameters = Sequence[Tensor]


def save_state(
    path: Path,
    parameters: Parameters,
    optimizer: torch.optim.Optimizer,
    position: Mapping[str, Any],
    carried: Mapping[str, Tensor] | None = None,
) -> None:
    """Write parameters, AdamW moments, an objective's tensors and a JSON position to `path`, whole or not at all."""
    weights = {f"{i}.weight": p.detach().contiguous() for i, p in enumerate(parameters)}
    extra = {f"carried.{name}": tensor.contiguous() for name, tensor in (carried or {}).items()}
    _write(path, weights | _moments(parameters, optimizer) | extra, {"position": json.dumps(position)})


def load_state(
    path: Path,
    parameters: Parameters,
    optimizer: torch.optim.Optimizer,
    carried: Mapping[str, Tensor] | None = None,
    cause: str = "",
) -> dict[str, Any] | None:
    """Restore what `save_state` wrote and return the position; None if there is no saved state.

    Raises StepError for a state whose position has another `cause`.
    """
    if not path.exists():
        return None
    with safe_open(path, "pt") as file, torch.no_grad():
        position: dict[str, Any] = json.loads(file.metadata()["position"])
        if (other := position.get("cause", "")) != cause:
            raise StepError(
                f"{path} is the state of training {other}, expected {cause}: the rows, options or weights differ; "
                "remove the file, or give another one"
            )
        load_moments(path, parameters, optimizer)
        for i, p in enumerate(parameters):
            p.copy_(file.get_tensor(f"{i}.weight"))
        for name, tensor in (carried or {}).items():
            tensor.copy_(file.get_tensor(f"carried.{name}"))
    return position


def save_moments(path: Path, parameters: Parameters, optimizer: torch.optim.Optimizer) -> None:
    """Write the optimizer's moments without the weights, which are kept elsewhere."""
    _write(path, _moments(parameters, optimizer), None)


def load_moments(path: Path, parameters: Parameters, optimizer: torch.optim.Optimizer) -> None:
    with safe_open(path, "pt") as file:
        names = set(file.keys())
        for i, p in enumerate(parameters):
            for moment in MOMENTS:
                if f"{i}.{moment}" in names:
                    tensor = file.get_tensor(f"{i}.{moment}")
                    optimizer.state[p][moment] = tensor if moment == "step" else tensor.to(p.device)


def _moments(parameters: Parameters, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{i}.{moment}": optimizer.state[p][moment].contiguous()
        for i, p in enumerate(parameters)
        for moment in MOMENTS
        if moment in optimizer.state[p]
    }


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with writing(partial):
        save_file(dict(tensors), partial, metadata=metadata)
        partial.replace(path)
