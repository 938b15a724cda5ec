"""What goes to disk beside the store: under a temporary name first, and a disk that is full is said to be."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from sparring.loop.errors import StepError


@contextmanager
def writing(partial: Path) -> Iterator[None]:
    """Within, `partial` (a file or a folder) is written. Raises StepError when it cannot be, and removes it."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        if partial.is_file():
            partial.unlink()
        raise StepError(
            f"{partial} could not be written ({error}); check free space with: df -h {partial.parent}, keep fewer "
            "checkpoints (keep.checkpoints), and go on with the same command (a run also with: spar resume). What was "
            "done before is safe"
        ) from error
