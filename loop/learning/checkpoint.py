"""Model folders: loading, hashing, and writing whole or not at all."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sparring.loop.disk import writing
from sparring.loop.errors import ConfigError, DataError
from sparring.loop.learning.forward_choice import forward_of
from sparring.loop.learning.multimodal import is_part, write_whole
from sparring.loop.learning.weight_sets import one_set

TOKENIZER = ("tokenizer*", "special_tokens_map.json", "chat_template*", "vocab.*", "merges.txt", "added_tokens.json")
COMPANIONS = (  # what a checkpoint takes over, byte for byte, from the model that it was learned from
    *TOKENIZER,
    "*.model",
    "tekken.json",
    "generation_config.json",
    "*processor_config.json",
)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, of one set of weights (see `one_set`).

    Raises DataError if it is not a model folder, or if a file of the set is missing.
    """
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    if not (folder / "config.json").exists() or not names:
        here = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) if folder.is_dir() else "no such folder"
        raise DataError(
            f"{folder} holds no model: found {here or 'an empty folder'}, expected config.json and *.safetensors; "
            "give a folder written by save_pretrained (pickled weights are not read)"
        )
    return [folder / name for name in one_set(names, folder)]


def weights_sha256(folder: Path) -> str:
    """One hash of all weight files, by name and content."""
    total = hashlib.sha256()
    for path in weight_files(folder):
        with path.open("rb") as file:
            total.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def pretrained(auto: Any, folder: Path, dtype: torch.dtype, **options: Any) -> tuple[Any, list[str]]:
    """(the model that `auto` makes of a folder, dropout off; the names of its weights that the folder lacks).

    Dropout is off, because the reference and the policy at step 0 must agree exactly.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # hides its report of unused weights
    options |= {"dtype": dtype, "use_safetensors": True, "trust_remote_code": False, "output_loading_info": True}
    with torch.random.fork_rng(devices=[]):  # weights that the folder lacks are drawn the same every time
        torch.manual_seed(0)
        model, info = auto.from_pretrained(folder, **options)
    logging.set_verbosity(level)
    return model.eval(), sorted(info["missing_keys"])


def load_model(folder: Path, device: torch.device) -> Any:
    """The causal language model, dropout off. In float32, because optimizer steps of 1e-5 vanish in bfloat16.

    Raises ConfigError for a model that is not causal or not supported (see loop.learning.forward_choice), and DataError
    for missing weights.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    weight_files(folder)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ConfigError(
            f"{folder} holds a {config.model_type} ({', '.join(config.architectures or ['no class named'])}), which "
            "transformers does not load as a causal language model; expected one that it does. Choose another model, "
            "or save the language model of this one by itself"
        )
    model, missing = pretrained(AutoModelForCausalLM, folder, torch.float32)
    if missing:
        raise DataError(
            f"{folder} lacks {len(missing)} weights of its {type(model).__name__}, such as {missing[0]}; expected all. "
            "Restore its files, or choose another model"
        )
    model = model.to(device)
    forward_of(model)
    return model


def save_model(model: Any, like: Path, folder: Path, beside: Callable[[Path], None] = lambda folder: None) -> str:
    """Write weights and config, with the tokenizer of `like`, to `folder`, and return the hash of the weights.

    The settings of generation are those of `like` too: how we sample is no part of them. `beside` writes what belongs
    to the checkpoint besides the policy, into folders below it. The folder is written under a temporary name, flushed
    to disk, then renamed, so a crash leaves no partial checkpoint.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with writing(partial):
        partial.mkdir(parents=True)
        _save_pretrained(model, partial)
        if is_part(model, like):
            write_whole(partial, like)
        for path in (path for pattern in COMPANIONS for path in like.glob(pattern) if path.is_file()):
            shutil.copy2(path, partial / path.name)
        beside(partial)
        for path in (p for p in partial.rglob("*") if p.is_file()):
            path.chmod(0o644)  # safetensors makes files that only the owner can read; a team shares a checkpoint
            with path.open("rb") as file:
                os.fsync(file.fileno())
    digest = weights_sha256(partial)
    shutil.rmtree(folder, ignore_errors=True)  # left by a run that died before it updated the store
    partial.rename(folder)
    return digest


def _save_pretrained(model: Any, folder: Path) -> None:
    """Without generation_config.json: transformers refuses to write settings that it reads, such as a temperature
    beside do_sample: false."""
    from transformers import GenerationConfig

    kept = getattr(model, "generation_config", None)
    if kept is not None:
        model.generation_config = GenerationConfig()
    try:
        model.save_pretrained(folder)
    finally:
        if kept is not None:
            model.generation_config = kept
    (folder / "generation_config.json").unlink(missing_ok=True)
