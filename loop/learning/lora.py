"""Low-rank adapters: the update learns a small addition to a frozen policy, which is merged at the end of the round."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from sparring.loop.errors import ConfigError, StepError
from sparring.loop.learning.options import Lora
from sparring.loop.learning.probing import probe_logprobs
from sparring.loop.types import derive_seed

FOLDER = "adapter"  # below a checkpoint: the adapter of the round without the merged weights
# Of the spread of the log-probs of a few texts. Merging rounds by 1e-7 to 3e-6 of it (float32, fifty architectures).
TOLERANCE = 1e-3
REMEDY = "set learn.lora.targets to a list of linear maps, such as [q_proj, k_proj, v_proj, o_proj]"


class Adapted:
    """A model with adapters. Its references are scored without adapters and stay the same."""

    def __init__(self, model: Any, lora: Lora, seed: int) -> None:
        """Change `model` in place: freeze its weights and add adapters that start as the identity."""
        from peft import get_peft_model

        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "lora"))
            self.peft = get_peft_model(model, _config(lora))
        self.peft.eval()

    def merge(self, tokenizer_from: Path) -> Any:
        """The model with the adapters merged into its weights, as after a full update.

        Raises StepError if that model gives other log-probs than the adapted one, on texts in the tokens of
        `tokenizer_from`.
        """
        from peft import get_peft_model_state_dict

        self.adapter = {name: tensor.contiguous() for name, tensor in get_peft_model_state_dict(self.peft).items()}
        learned = torch.tensor(probe_logprobs(self.peft.get_base_model(), tokenizer_from))
        merged = self.peft.merge_and_unload().requires_grad_(True)
        apart = (torch.tensor(probe_logprobs(merged, tokenizer_from)) - learned).abs().mean().item()
        if not apart <= TOLERANCE * learned.std().item():
            raise StepError(
                f"adapters merged into {type(merged).__name__} change its log-probs by {apart:.2g} nats per token; "
                f"expected rounding alone. Its code does not compute with the merged weights: {REMEDY}"
            )
        return merged

    def save(self, folder: Path) -> None:
        """Write the merged adapter in peft's format."""
        (folder / FOLDER).mkdir()
        self.peft.peft_config["default"].save_pretrained(folder / FOLDER)
        save_file(self.adapter, folder / FOLDER / "adapter_model.safetensors")


def check_merge(model: Any, folder: Path, lora: Lora) -> None:
    """Raise ConfigError unless adapters that have learned something can be merged into the model of `folder`.

    The model is changed, and of no use afterwards.
    """
    try:
        adapted = Adapted(model, lora, seed=0)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".lora_" in name:
                    drawn = torch.randn(parameter.shape, generator=generator) * 0.05
                    parameter.copy_(drawn)
        adapted.merge(folder)
    except (StepError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"learn.lora does not work with the model in {folder}: {error}; {REMEDY}") from error


def refuse_targets(folder: Path, lora: Lora) -> None:
    """Raise ConfigError for targets that the model in `folder` has not, that PEFT cannot adapt, or that are tied.

    Tied weights, such as an output head that is also the embedding, cannot get an adapter: merged into one of the two,
    it would change the other. The model is built without weights, from its config.
    """
    from peft import inject_adapter_in_model
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    model.tie_weights()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")  # it is refused below
            inject_adapter_in_model(_config(lora), model)
    except ValueError as error:
        raise ConfigError(f"learn.lora.targets {lora.targets!r}, in {folder}: {error}") from error
    owners = dict[int, list[str]]()
    for owner, weight in _owned(model):
        owners.setdefault(id(weight), []).append(owner)
    adapted = {name for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
    tied = [names for names in owners.values() if len(names) > 1 and adapted.intersection(names)]
    if tied:
        raise ConfigError(
            f"learn.lora.targets {lora.targets!r}: {' and '.join(tied[0])} are one weight in {folder}, and an adapter "
            f"of one, merged, would change the other; {REMEDY}, or learn all weights (leave learn.lora out)"
        )


def _owned(model: Any) -> Iterator[tuple[str, Any]]:
    """(name of a module without peft's layer around it, a weight of its own)."""
    for name, module in model.named_modules():
        for _, weight in module.named_parameters(recurse=False):
            yield name.removesuffix(".base_layer"), weight


def _config(lora: Lora) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=lora.targets, task_type="CAUSAL_LM")
