from pathlib import Path

import pytest

from tests.tiny import build_tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model (see tests.tiny). Read only: checkpoints go elsewhere."""
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
