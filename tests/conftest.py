import os
import sys
from pathlib import Path

import pytest

from tests.helpers.tiny import build_tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model (see tests.helpers.tiny). Read only: checkpoints go elsewhere."""
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with a time limit of their own take longest: they come first, so that no core waits for them at the end."""
    long = {item.path for item in items if item.get_closest_marker("timeout")}
    items.sort(key=lambda item: item.path not in long)


STATUS = pytest.StashKey[int]()


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the process here: vLLM's and DuckDB's bindings take long to go down and complain of each other."""
    status = config.stash.get(STATUS, None)
    if status is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[STATUS] = int(exitstatus)
