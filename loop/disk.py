"""Writing files beside the store, with a clear error when the disk is full."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from sparring.loop.errors import StepError


@contextmanager
def writing(partial: Path) -> Iterator[None]:
    """A context that writes `partial`, a file or a folder. If that fails, removes it and raises StepError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        if partial.is_file():
            partial.unlink()
        raise StepError(
            f"{partial} could not be written ({error}); check free space with: df -h {partial.parent}, keep fewer "
            "checkpoints (keep.checkpoints), and run the same command again (for a run, also: spar resume). Earlier "
            "work is safe"
        ) from error
