"""Processes that start at once: forks of one that has loaded the store and its maintenance."""

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["pytest", "benchmarks.store_kills", "tests.helpers.records", "tests.helpers.store_files", "sparring.store.reader"]
    + [f"sparring.store.maintenance.{name}" for name in ("copies", "forget", "rebuild")]
)
