"""Engines of test processes beside each other have a core each: threads that wait for each other's cores crawl.

Torch reads its number of threads when it is imported, which is before this: the Makefile sets it.
"""

import os

from tests.helpers.cores import CORES, one_core

if worker := os.environ.get("PYTEST_XDIST_WORKER"):  # gw0, gw1, ...
    os.environ |= one_core(CORES[int(worker.removeprefix("gw")) % len(CORES)])
