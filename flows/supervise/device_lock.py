"""One process at a time per accelerator, because two engines that each take most of its memory both fail."""

import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout

from sparring.flows.supervise.processes import describe, openers
from sparring.loop.errors import EnvironmentProblem

LOOK = 1.0  # seconds between tries
REPEAT = 300.0  # seconds between messages while waiting


def lock_devices(
    names: Sequence[str] | None = None, *, folder: Path | None = None, say: Callable[[str], None] = lambda text: None
) -> ExitStack:
    """Lock the accelerators that this process sees, waiting until they are free; a CPU needs no lock.

    They are locked until the returned stack is closed, or the process ends, whatever ends it.
    All processes lock in the same order, so that two never wait for each other. `say` gets a message about the holder.
    The locks are files of this user; a scheduler must separate users of one machine.
    """
    devices = visible_devices() if names is None else names
    folder = locks_folder() if folder is None else folder
    with ExitStack() as held:  # released here when one cannot be locked
        for path in sorted({lock_path(folder, name) for name in devices}):
            held.callback(_wait_for(path, say).release)
        return held.pop_all()


def visible_devices() -> list[str]:
    """The UUIDs of the accelerators that PyTorch sees under CUDA_VISIBLE_DEVICES."""
    import torch

    from sparring.loop.hardware import device

    if device().type != "cuda":
        return []
    return [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]


def locks_folder() -> Path:
    """The folder of the locks: neither the runtime folder, deleted at logout, nor the temporary one, cleaned by age."""
    import platformdirs

    return platformdirs.user_state_path("sparring") / "devices"


def lock_path(folder: Path, name: str) -> Path:
    return folder / (re.sub(r"[^A-Za-z0-9.-]", "-", name) + ".lock")


def _wait_for(path: Path, say: Callable[[str], None]) -> FileLock:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(path))
        last_said = float("-inf")
        while True:
            try:
                lock.acquire(timeout=0)
                return lock
            except Timeout:
                if time.monotonic() - last_said > REPEAT:
                    last_said = time.monotonic()
                    say(f"waiting for accelerator {path.stem}: {_holder(path)} has it")
                time.sleep(LOOK)
    except OSError as error:
        raise EnvironmentProblem(
            f"the lock of accelerator {path.stem} cannot be used ({error}); make {path.parent} writable, or set "
            "XDG_STATE_HOME to a folder that is"
        ) from error


def _holder(path: Path) -> str:
    holder = openers([path]).get(path)
    return describe(holder) if holder else "a process that cannot be seen from here"
