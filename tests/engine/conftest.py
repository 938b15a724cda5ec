"""Engines of test processes beside each other have a core each: threads that wait for each other's cores crawl."""

import os

from tests.engine.cores import CORES, one_core

if worker := os.environ.get("PYTEST_XDIST_WORKER"):  # gw0, gw1, ...
    os.environ |= one_core(CORES[int(worker.removeprefix("gw")) % len(CORES)])
