"""The state of an update in progress: weights, optimizer, position. Safetensors, so that reading it runs no code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def save_state(path: Path, model: Any, optimizer: torch.optim.Optimizer, position: Mapping[str, Any]) -> None:
    """Write parameters, AdamW moments and a JSON position to `path`, whole or not at all."""
    tensors = {}
    for i, p in enumerate(model.parameters()):
        tensors[f"{i}.weight"] = p.detach().contiguous()
        for moment in MOMENTS:
            if moment in optimizer.state[p]:
                tensors[f"{i}.{moment}"] = optimizer.state[p][moment].contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"position": json.dumps(position)})
    partial.replace(path)


def load_state(path: Path, model: Any, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Put back what `save_state` wrote and return the position; None when there is nothing to go on from."""
    if not path.exists():
        return None
    with safe_open(path, "pt") as file, torch.no_grad():
        names = set(file.keys())
        for i, p in enumerate(model.parameters()):
            p.copy_(file.get_tensor(f"{i}.weight"))
            for moment in MOMENTS:
                if f"{i}.{moment}" in names:
                    tensor = file.get_tensor(f"{i}.{moment}")
                    optimizer.state[p][moment] = tensor if moment == "step" else tensor.to(p.device)
        position: dict[str, Any] = json.loads(file.metadata()["position"])
        return position
