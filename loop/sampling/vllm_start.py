"""The start of a vLLM engine: its options, its process, and where its native output goes."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sparring.loop.errors import EnvironmentProblem, StepError
from sparring.loop.hardware import device, vllm_environment
from sparring.loop.sampling.folder_facts import config_of, text_class, unknown_ids

WORKER = "sparring.loop.sampling.vllm_worker"


def needs_own_process(folder: str) -> bool:
    """Whether the engine of this model must not share a process with the learner.

    On a GPU, two engines cannot sleep in one process, and a process that ends returns all its memory. On a CPU, models
    that vLLM does not implement itself run on its transformers backend, which changes the classes of transformers in
    its process, so that the learner could not load a model any more.
    """
    known = _implementations(folder)
    return device().type == "cuda" or not known or any(_is_transformers(each) for each in known)


def _implementations(folder: str) -> list[Any]:
    """vLLM's entries for the model's architecture: none if it has no implementation of its own."""
    from vllm import ModelRegistry

    alone = text_class(folder)
    names = [alone] if alone else config_of(folder).architectures or []
    return [ModelRegistry.models[name] for name in names if name in ModelRegistry.models]


def _is_transformers(implementation: Any) -> bool:
    return "transformers" in getattr(implementation, "module_name", "").split(".")


def start(folder: str, *, apart: bool, log: Path | None, gpu_memory: float, **options: Any) -> tuple[Any, bool]:
    """(a live vllm.LLM of the model in `folder`, whether it is in a process of its own).

    It is in one if `apart` or where it needs one. `log` gets the native output of the start. Raises StepError if vLLM
    does not start with this model, and EnvironmentProblem if there is no vLLM.
    """
    os.environ.update(vllm_environment(cache_gib=1))
    try:
        from vllm import LLM  # after the environment is set
    except ImportError as error:
        raise EnvironmentProblem(
            f"vLLM cannot be imported ({error}); install it with: pip install 'sparring[cpu]' (or [gpu])"
        ) from error
    own = apart or needs_own_process(folder)
    try:
        with native_stderr_to(log), processes(own):
            engine = LLM(folder, **_model(folder), **_hardware(folder, gpu_memory), **options)
    except Exception as error:
        more = f"; {log} has more" if log else ""
        raise StepError(
            f"vLLM cannot start with the model in {folder}: {cause(error)}{more}. Expected whole weights of an "
            "architecture that vLLM runs on this machine. Choose another model, or set sample.engine: transformers, "
            "which is slower"
        ) from error
    if own:
        engine.collective_rpc("end_with_parent")
    return engine, own


def cause(error: Exception, length: int = 500) -> str:
    """The end of vLLM's message: it may be another process's traceback, which names the cause last."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text if len(text) <= length else f'... {text[-length:]}'}"


def _model(folder: str) -> dict[str, Any]:
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    from sparring.loop.sampling.vllm_weights import FOLDER, text_alone

    return {
        # The files that the learner reads, where a repository of Mistral's also holds its own.
        "config_format": "hf",
        "tokenizer_mode": "hf",
        "load_format": FOLDER,
        "hf_overrides": partial(text_alone, folder) if text_class(folder) else None,
        "trust_remote_code": False,
        "worker_extension_cls": f"{WORKER}.Reloading",
        "logits_processors": [f"{WORKER}:KnownTokens"] if unknown_ids(folder) else None,
        "distributed_executor_backend": UniProcExecutor,  # by its name, vLLM adds a second process on a CPU
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }


def _hardware(folder: str, gpu_memory: float) -> dict[str, Any]:
    if device().type == "cuda":
        return {"enable_prefix_caching": True, "enable_sleep_mode": True, "gpu_memory_utilization": gpu_memory}
    # Seeded requests crash the CPU engine if a prefill is cut into chunks, so every prefill must fit into one step. But
    # vLLM caches the state of a recurrent layer at the ends of chunks alone, so such a model's prefixes are not cached.
    recurrent = any(each.inspect_model_cls().has_inner_state for each in _implementations(folder))
    return {
        "enable_prefix_caching": not recurrent,
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "block_size": 32,
    }


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
