"""Versions, hardware and vLLM."""

import importlib
import os
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version

from sparring.store.maintenance.finding import Finding

PACKAGES = ("torch", "transformers", "accelerate", "datasets", "duckdb", "prefect", "pyarrow", "pydantic", "psutil")
IMPORTING, PROBING = 120.0, 600.0  # seconds; an idle machine takes 15 and 40
INSTALL = "pip install 'sparring[cpu]' on a CPU, 'sparring[gpu]' on CUDA"


def python() -> Finding:
    version_text = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", sys.version_info >= (3, 11), version_text, "install Python 3.11 or newer")


def package(name: str) -> Finding:
    try:
        return Finding(name, True, version(name))
    except PackageNotFoundError:
        return Finding(name, False, "not installed", f"pip install {name}, or reinstall sparring")


def vision() -> Finding:
    """Whether torchvision imports. One built for another torch breaks text models too, as transformers imports it."""
    try:
        importlib.import_module("torchvision")
        return Finding("torchvision", True, "imports")
    except ModuleNotFoundError:
        return Finding("torchvision", True, "absent (not needed)")
    except (ImportError, RuntimeError, OSError) as error:
        return Finding("torchvision", False, f"broken: {error}", "pip uninstall torchvision (text models need none)")


def hardware() -> Finding:
    from sparring.loop.hardware import cores, device, fast_dtype

    return Finding("hardware", True, f"{device()}, {len(cores())} cores, fastest in {fast_dtype()}")


def start_vllm() -> "subprocess.Popen[str]":
    """Import vLLM in its own process, because a crash in native code ends the process."""
    return _python("-c", "import vllm\nprint(vllm.__version__)")


def vllm(started: "subprocess.Popen[str]") -> Finding:
    return _ended("vllm", started, IMPORTING, INSTALL)


def engine() -> Finding:
    """Sample two tokens from a tiny random model with the engine that runs use."""
    with tempfile.TemporaryDirectory() as folder:
        started = _python("-m", "sparring.doctor.probe", folder)
        return _ended("vllm engine", started, PROBING, f"read the message, and reinstall vLLM: {INSTALL}")


def _python(*arguments: str) -> "subprocess.Popen[str]":
    from sparring.loop.hardware import vllm_environment

    environment = {**os.environ, **vllm_environment(cache_gib=1)}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=pipe, stderr=pipe, encoding="utf-8", errors="replace"
    )


def _ended(name: str, started: "subprocess.Popen[str]", seconds: float, remedy: str) -> Finding:
    try:
        out, err = started.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        started.kill()
        started.communicate()
        return Finding(name, False, f"no answer within {seconds:g} s", f"try again on an idle machine; {remedy}")
    if started.returncode == 0 and out.strip():
        return Finding(name, True, out.strip().splitlines()[-1])
    last_line = err.strip().splitlines()[-1:] or [f"ended with code {started.returncode} and no message"]
    return Finding(name, False, last_line[0], remedy)
