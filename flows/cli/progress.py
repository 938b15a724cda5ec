"""What a person sees while a run is live: bars on a terminal, now and then a line elsewhere. All on stderr."""

import time
from collections.abc import Iterator, Sequence
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from loop.parts import Run
from loop.types import JudgeCall, Record, Round
from store.store import DuckStore

EVERY = 15.0  # seconds between lines where there is no terminal
VERBS = {"sample": "sampling", "judge": "judging", "score": "scoring", "learn": "learning"}


class Bars:
    """One bar at a time on a terminal; elsewhere a line now and then."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.progress = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._what = ""
        self._task: TaskID | None = None
        self._said = 0.0

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def show(self, what: str, done: int, total: int, loss: float | None = None) -> None:
        """Where `what` stands; another `what` is another bar."""
        if self._task is None or what != self._what:
            self.start(what, total)
        self.advance(done, total, "" if loss is None else f"loss {loss:.3f}")
        if done == total:
            self.end()

    def start(self, what: str, total: int) -> None:
        self.end()
        self._what, self._said = what, time.monotonic()
        self._task = self.progress.add_task(what, total=total, note="")

    def advance(self, done: int, total: int, note: str = "") -> None:
        if self._task is not None:
            self.progress.update(self._task, completed=done, note=note)
        if not self.console.is_terminal and time.monotonic() - self._said > EVERY:
            self.console.print(f"{self._what} {done}/{total} {note}".rstrip())
            self._said = time.monotonic()

    def end(self) -> None:
        if self._task is not None:
            self.progress.remove_task(self._task)
            self._task = None


class Display(Bars):
    """Watches the chunks on their way into the store, and the learner's steps."""

    def __init__(self, store: DuckStore, run: str) -> None:
        super().__init__()
        self.store, self.run = store, run
        self.where = ""

    def watch(self, step: str, total: int, chunks: Iterator[Sequence[Record]]) -> Iterator[Sequence[Record]]:
        done = 0
        if total:
            self.start(f"{self.where} {VERBS[step]}", total)
        for chunk in chunks:
            yield chunk  # comes back when the store has committed it
            done += len({r.prompt_id for r in chunk if hasattr(r, "prompt_id")}) if step == "sample" else _made(chunk)
            self.advance(done, total)
        self.end()

    def learning(self, done: int, total: int, loss: float) -> None:
        self.show(f"{self.where} {VERBS['learn']}", done, total, loss)

    def call(self, step: Run, *args: Any) -> Any:
        self.where = f"round {args[0].index}"
        return step(*args)

    def round_done(self, following: Round) -> None:
        """One line on the round just played."""
        from flows.cli.tables import round_line, summaries

        row = next(r for r in summaries(self.store, self.run) if r["round"] == following.index - 1)
        self.console.print(round_line(row))


def _made(chunk: Sequence[Record]) -> int:
    """The records that were asked for: the calls that a judgement took are not counted beside it."""
    return sum(not isinstance(record, JudgeCall) for record in chunk)
