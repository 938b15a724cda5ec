"""What vLLM gets of a model folder: the config and the weights of the language model, as the learner reads them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from vllm.config import ModelConfig
from vllm.config.load import LoadConfig
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

from sparring.loop.learning.checkpoint import weight_files
from sparring.loop.sampling.folder_facts import text_class

FOLDER = "sparring"  # the name of the load format
# What the families put before the names of their language model's weights, and what it calls them alone.
PREFIXES = {
    "model.language_model.": "model.",
    "language_model.model.": "model.",
    "language_model.lm_head.": "lm_head.",
    "lm_head.": "lm_head.",
}


@register_model_loader(FOLDER)
class FolderLoader(DefaultModelLoader):  # type: ignore[misc]
    """Reads the files that are hashed as the model's weights, at the start and at every reload."""

    def __init__(self, load_config: LoadConfig) -> None:
        super().__init__(replace(load_config, load_format="safetensors"))

    def get_all_weights(self, model_config: ModelConfig, model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
        for file, own_name, name in named_weights(model_config.model):
            yield name, file.get_tensor(own_name)


def text_alone(folder: str, config: Any) -> Any:
    """The config of the language model in a folder whose config is a multimodal family's."""
    text = config.get_text_config(decoder=True)
    text.architectures = [text_class(folder)]
    text.tie_word_embeddings = all(name != "lm_head.weight" for _, _, name in named_weights(folder))
    return text


def named_weights(folder: str) -> Iterator[tuple[Any, str, str]]:
    """(open file, a weight's name in it, its name in the language model alone) for each weight of that model."""
    family = text_class(folder) is not None
    for path in weight_files(Path(folder)):
        with safe_open(path, "pt") as file:
            for own_name in file.keys():  # noqa: SIM118  it is no dictionary
                name = alone(own_name) if family else own_name
                if name is not None:
                    yield file, own_name, name


def alone(name: str) -> str | None:
    """The weight's name in the language model alone; None for a weight that is not of that model."""
    return next((new + name.removeprefix(old) for old, new in PREFIXES.items() if name.startswith(old)), None)
