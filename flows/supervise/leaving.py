"""SIGUSR1 asks a run to save and leave: at the next chunk that is stored, the next step, or the next optimizer step."""

import os
import signal
from types import FrameType
from typing import Any

from sparring.loop.errors import SavedAndLeft

_asked = False


def listen() -> Any:
    """Listen to SIGUSR1, unless the program has a handler of its own; returns the handler before. Main thread only."""
    global _asked
    _asked = False
    before = signal.getsignal(signal.SIGUSR1)
    if before == signal.SIG_DFL:
        signal.signal(signal.SIGUSR1, _ask)
    return before


def stop_listening(before: Any) -> None:
    if signal.getsignal(signal.SIGUSR1) == _ask:
        signal.signal(signal.SIGUSR1, before)


def asked_to_leave() -> bool:
    return _asked


def leave_if_asked() -> None:
    """Raise SavedAndLeft when the run was asked to leave. Call it where everything that was made is stored."""
    if _asked:
        raise SavedAndLeft("SIGUSR1: every row that was made is stored, and so is the state of a training")


def _ask(number: int, frame: FrameType | None) -> None:
    global _asked
    _asked = True
    os.write(
        2, b"spar: SIGUSR1: the run saves and leaves at the next chunk or optimizer step\n"
    )  # print may be running
