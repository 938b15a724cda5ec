"""A stream that survives the loss of its reader."""

from typing import Any, TextIO


class Lasting:
    """A stream for a Console. After a write fails, it writes nothing more."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.gone = stream, False

    def write(self, text: str) -> int:
        if not self.gone:
            try:
                self.stream.write(text)
                self.stream.flush()
            except OSError:  # the pipe or the terminal is closed, or the disk is full; the run continues
                self.gone = True
        return len(text)

    def flush(self) -> None:
        pass  # `write` has done it

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
