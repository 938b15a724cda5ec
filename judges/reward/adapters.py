"""LoRA adapters on a backbone: the members of an ensemble that share all other weights (2401.16635)."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparring.loop.errors import EnvironmentProblem
from sparring.loop.options import check_options
from sparring.loop.types import derive_seed


def lora_options(
    rank: int = 32, alpha: int = 64, dropout: float = 0.05, targets: str | Sequence[str] = "all-linear"
) -> dict[str, Any]:
    """The options of an adapter under PEFT's names. `targets` are the linear maps that get one."""
    named = targets if isinstance(targets, str) else list(targets)
    return {"r": rank, "lora_alpha": alpha, "lora_dropout": dropout, "target_modules": named}


def add_adapters(backbone: nn.Module, count: int, seed: int, options: Mapping[str, Any]) -> None:
    """Put `count` adapters on the backbone, drawn from the seed, and freeze its own weights.

    An adapter changes nothing before it is trained. Raises ConfigError for an unknown option.
    """
    check_options("adapter", "lora", lora_options, options)
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise EnvironmentProblem(f"LoRA adapters need PEFT ({error}); install it with: pip install peft") from error
    for i in range(count):
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")  # several are intended
            torch.manual_seed(derive_seed(seed, "adapter", i))
            inject_adapter_in_model(LoraConfig(**lora_options(**options)), backbone, adapter_name=str(i))
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(_is_adapter(name))


def use_adapter(backbone: nn.Module, adapter: int) -> None:
    """Make the backbone compute with one of its adapters. Which weights are trainable does not change."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in backbone.modules():
        if isinstance(layer, BaseTunerLayer):
            before = [(p, p.requires_grad) for p in layer.parameters()]
            layer.set_adapter(str(adapter))  # freezes all others, which would lose their gradients of this step
            for parameter, trainable in before:
                parameter.requires_grad_(trainable)


def split_state(backbone: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(the backbone's own weights under their own names, the adapters')."""
    state = backbone.state_dict()
    adapters = {name: tensor.contiguous() for name, tensor in state.items() if _is_adapter(name)}
    own = {name.replace(".base_layer.", "."): t for name, t in state.items() if not _is_adapter(name)}
    return own, adapters


def _is_adapter(name: str) -> bool:
    return ".lora_" in name
