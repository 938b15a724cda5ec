"""A pipe on which the companion hears of signals at once, also while native code holds the interpreter.

Python handles a signal between two instructions of its main thread, so a hang in native code handles none. But its
handler in C writes the number of every signal to the wakeup descriptor of the process first.
"""

import os
import signal
import threading
from typing import ClassVar

NOBODY = -1


class Wakeup:
    """The wakeup descriptor of this process, in its main thread, unless somebody else has one (asyncio, for instance).

    `reader` is the end for the companion; close it here once the companion has it.
    """

    _open: ClassVar["Wakeup | None"] = None

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)  # as set_wakeup_fd demands
        Wakeup._open = self
        self.take()

    def take(self) -> None:
        """Take the descriptor, or take it back: asyncio gives it up when its last handler is removed."""
        if _in_main():
            other = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            if other not in (NOBODY, self._writer):
                signal.set_wakeup_fd(other)

    def give_up(self) -> None:
        if _in_main():
            other = signal.set_wakeup_fd(NOBODY)
            if other not in (NOBODY, self._writer):
                signal.set_wakeup_fd(other)

    def close(self) -> None:
        self.give_up()
        Wakeup._open = None
        os.close(self._writer)


def _in_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _before_fork() -> None:
    if Wakeup._open is not None:
        Wakeup._open.give_up()


def _after_fork() -> None:
    if Wakeup._open is not None:
        Wakeup._open.take()


def _in_child() -> None:
    if Wakeup._open is not None:
        Wakeup._open.give_up()  # where a thread forked, which could not give it up before
        Wakeup._open = None


# Signals of a fork are not signals of the run: a pool that ends its workers must not end the run.
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
