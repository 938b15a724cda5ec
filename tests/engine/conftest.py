"""Engines of test processes beside each other have a core each: threads that wait for each other's cores crawl.

Torch reads its number of threads when it is imported, which is before this: the Makefile sets it.
"""

import os
from importlib.util import find_spec

import pytest

from tests.helpers.cores import CORES, one_core

if worker := os.environ.get("PYTEST_XDIST_WORKER"):  # gw0, gw1, ...
    os.environ |= one_core(CORES[int(worker.removeprefix("gw")) % len(CORES)])


@pytest.fixture(scope="session", autouse=True)
def vllm() -> None:
    """Skips the tests without vLLM. It is not imported here, nor by a test module: that takes ten seconds."""
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed: pip install 'sparring[cpu]'")
