"""A stream that outlasts its reader."""

from typing import Any, TextIO


class Lasting:
    """For a Console: when a write fails, nothing more is written."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.gone = stream, False

    def write(self, text: str) -> int:
        if not self.gone:
            try:
                self.stream.write(text)
                self.stream.flush()
            except OSError:  # the pipe is closed, the terminal hung up, the log's disk is full: nothing of ours is lost
                self.gone = True
        return len(text)

    def flush(self) -> None:
        pass  # `write` has done it

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
