"""What `spar doctor` looks at."""

import importlib
import os
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "transformers", "accelerate", "datasets", "duckdb", "prefect", "pyarrow", "pydantic")


@dataclass(frozen=True)
class Finding:
    name: str
    ok: bool
    found: str
    remedy: str = ""


def examine() -> list[Finding]:
    return [_python(), *map(_package, PACKAGES), _vllm(), _vision(), _hardware(), _disk()]


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", sys.version_info >= (3, 11), found, "install Python 3.11 or newer")


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, version(name))
    except PackageNotFoundError:
        return Finding(name, False, "not installed", f"pip install {name}, or install sparring again")


def _vllm() -> Finding:
    from loop.hardware import vllm_environment

    os.environ.update(vllm_environment(cache_gib=1) | os.environ)
    try:
        return Finding("vllm", True, str(importlib.import_module("vllm").__version__))
    except ImportError as error:
        return Finding("vllm", False, str(error), "pip install 'sparring[cpu]' on a CPU, 'sparring[gpu]' on CUDA")


def _vision() -> Finding:
    """A torchvision built for another torch breaks text models too: transformers imports it when it is there."""
    try:
        importlib.import_module("torchvision")
        return Finding("torchvision", True, "imports")
    except ModuleNotFoundError:
        return Finding("torchvision", True, "absent (not needed)")
    except (ImportError, RuntimeError, OSError) as error:
        return Finding("torchvision", False, f"broken: {error}", "pip uninstall torchvision (text models need none)")


def _hardware() -> Finding:
    from loop.hardware import cores, device, fast_dtype

    return Finding("hardware", True, f"{device()}, {len(cores())} cores, fastest in {fast_dtype()}")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return Finding(
        "disk", free > 5, f"{free:.1f} GiB free here", "free some space: a checkpoint is as big as the model"
    )
