"""The devices and the fastest dtype of this machine, and the environment that vLLM needs."""

import os
import re
from typing import Literal

import torch

Dtype = Literal["float32", "bfloat16"]


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fast_dtype() -> Dtype:
    """bfloat16 where the hardware multiplies it natively, else float32 (emulated bfloat16 is several times slower)."""
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"


def autocast(dtype: str) -> torch.autocast:
    """A context that multiplies in bfloat16 if that is `dtype`. Weights keep their dtype."""
    return torch.autocast(device().type, dtype=torch.bfloat16, enabled=dtype == "bfloat16")


def default_token_budget() -> int:
    """Tokens per forward and backward pass. A GPU needs many to be busy; a CPU needs few and is short of memory."""
    return 16384 if device().type == "cuda" else 1024


def cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def vllm_environment(cache_gib: int) -> dict[str, str]:
    """Environment variables for vLLM in this process. They must be set before vllm is imported.

    One process, because starting the default three, each of which compiles, takes minutes on a CPU. As many cores as
    PyTorch has threads, because vLLM otherwise reserves one for the scheduler, which is the same thread here.
    """
    chosen = {
        "VLLM_CPU_KVCACHE_SPACE": str(cache_gib),
        "VLLM_LOGGING_LEVEL": "ERROR",
    }  # by the user, who may change them
    return {name: os.environ.get(name, value) for name, value in chosen.items()} | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_CPU_OMP_THREADS_BIND": _bound_to(torch.get_num_threads()),
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


def _bound_to(threads: int) -> str:
    """The cores of vLLM's threads on a CPU: the user's, where those are as many as there are threads."""
    chosen = os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "")
    if re.fullmatch(r"\d+(,\d+)*", chosen) and chosen.count(",") + 1 == threads:
        return chosen
    return ",".join(map(str, cores()[:threads])) if threads <= len(cores()) else "nobind"
