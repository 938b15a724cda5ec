"""What this machine computes fastest in, and how vLLM is told to use its CPU."""

import os
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
    """Multiply in bfloat16 when `dtype` says so; weights stay as they are."""
    return torch.autocast(device().type, dtype=torch.bfloat16, enabled=dtype == "bfloat16")


def default_token_budget() -> int:
    """Tokens a forward and backward pass: a GPU needs many to be busy, a CPU is busy with few and short of memory."""
    return 16384 if device().type == "cuda" else 1024


def cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def vllm_environment(cache_gib: int) -> dict[str, str]:
    """Environment for vLLM inside this process. Must be set before vllm is imported.

    One process: the default start of three, each compiling, takes minutes on a CPU. All cores: vLLM reserves one for
    the scheduler otherwise, which here is the same thread.
    """
    return {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores())),
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_CPU_KVCACHE_SPACE": str(cache_gib),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
