"""The start of a vLLM engine: its options, its process, and where its native output goes."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparring.loop.errors import EnvironmentProblem
from sparring.loop.hardware import device, vllm_environment
from sparring.loop.sampling.folder_facts import config_of, unknown_ids

# Repositories of Mistral's hold its own files too, which vLLM prefers: but the learner reads and writes these.
HUGGING_FACE = {"config_format": "hf", "tokenizer_mode": "hf", "load_format": "safetensors"}
WORKER = "sparring.loop.sampling.vllm_worker"


def needs_own_process(folder: str) -> bool:
    """Whether the engine of this model must not share a process with the learner.

    On a GPU, two engines cannot sleep in one process, and a process that ends returns all its memory. On a CPU, models
    that vLLM does not implement itself run on its transformers backend, which changes the classes of transformers in
    its process, so that the learner could not load a model any more.
    """
    if device().type == "cuda":
        return True
    from vllm import ModelRegistry

    names = config_of(folder).architectures or []
    known = [ModelRegistry.models[name] for name in names if name in ModelRegistry.models]
    return not known or any("transformers" in getattr(model, "module_name", "").split(".") for model in known)


def start(folder: str, *, apart: bool, log: Path | None, gpu_memory: float, **options: Any) -> tuple[Any, bool]:
    """(a live vllm.LLM of the model in `folder`, whether it is in a process of its own).

    It is in one if `apart` or where it needs one. `log` gets the native output of the start.
    """
    os.environ.update(vllm_environment(cache_gib=1) | os.environ)
    try:
        from vllm import LLM  # after the environment is set
        from vllm.v1.executor.uniproc_executor import UniProcExecutor
    except ImportError as error:
        raise EnvironmentProblem(
            f"vLLM cannot be imported ({error}); install it with: pip install 'sparring[cpu]' (or [gpu])"
        ) from error
    own = apart or needs_own_process(folder)
    with native_stderr_to(log), processes(own):
        engine = LLM(
            folder,
            enable_prefix_caching=True,
            distributed_executor_backend=UniProcExecutor,  # by name, vLLM adds a second process on a CPU
            disable_log_stats=True,
            use_tqdm_on_load=False,
            trust_remote_code=False,
            worker_extension_cls=f"{WORKER}.Reloading",
            logits_processors=[f"{WORKER}:KnownTokens"] if unknown_ids(folder) else None,
            language_model_only=True,  # of a multimodal family, the part that reads and writes text
            **HUGGING_FACE,
            **_hardware(gpu_memory),
            **options,
        )
    return engine, own


def _hardware(gpu_memory: float) -> dict[str, Any]:
    if device().type == "cuda":
        return {"enable_sleep_mode": True, "gpu_memory_utilization": gpu_memory}
    # Seeded requests crash the CPU engine if a prefill is cut into chunks, so every prefill must fit into one step.
    return {"enforce_eager": True, "enable_chunked_prefill": False, "block_size": 32}


@contextmanager
def processes(own: bool) -> Iterator[None]:
    """A context in which an engine starts in a process of its own if `own`, else as configured."""
    if not own:
        yield
        return
    from vllm import envs

    before = os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
    envs.disable_envs_cache()  # an earlier engine has cached the old value
    try:
        yield
    finally:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = before


@contextmanager
def native_stderr_to(log: Path | None) -> Iterator[None]:
    """Redirect file descriptor 2 to `log`, because native code warns there, past Python's logging and warnings."""
    if log is None:
        yield
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    kept = os.dup(2)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
