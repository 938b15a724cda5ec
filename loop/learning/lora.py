"""Low-rank adapters: the update learns a small addition to a frozen policy, which is merged at the end of the round."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from sparring.loop.learning.options import Lora
from sparring.loop.types import derive_seed

FOLDER = "adapter"  # below a checkpoint: the adapter of the round without the merged weights


class Adapted:
    """A model with adapters. Its references are scored without adapters and stay the same."""

    def __init__(self, model: Any, lora: Lora, seed: int) -> None:
        """Change `model` in place: freeze its weights and add adapters that start as the identity."""
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=lora.targets, task_type="CAUSAL_LM")
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "lora"))
            self.peft = get_peft_model(model, config)
        self.peft.eval()

    def merge(self) -> Any:
        """The model with the adapters merged into its weights, as after a full update."""
        from peft import get_peft_model_state_dict

        self.adapter = {name: tensor.contiguous() for name, tensor in get_peft_model_state_dict(self.peft).items()}
        return self.peft.merge_and_unload().requires_grad_(True)

    def save(self, folder: Path) -> None:
        """Write the merged adapter in peft's format."""
        (folder / FOLDER).mkdir()
        self.peft.peft_config["default"].save_pretrained(folder / FOLDER)
        save_file(self.adapter, folder / FOLDER / "adapter_model.safetensors")
