"""The progress display of a live run: where it is, how fast it goes, and about how long it will take.

A terminal shows a few lines that change; other streams get a line now and then. All of it goes to stderr. A terminal
that goes away does not end the run.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import IO, Any, Self, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sparring.cli.lasting import Lasting
from sparring.cli.pace import Work as Work
from sparring.cli.pace import run_left
from sparring.loop.formatting import about, clock, decimals
from sparring.loop.parts import Run
from sparring.loop.types import JudgeCall, Record, Round
from sparring.store.store import DuckStore

EVERY = 15.0  # seconds between lines when there is no terminal
PATIENCE = 0.5  # seconds before work is shown, so that short work does not flash
STEPS = {
    "sample": "sampling",
    "judge": "judging",
    "pair": "pairing",
    "score": "scoring",
    "learn": "learning",
    "evaluate": "evaluating",
}
UNITS = {"sample": "prompts", "judge": "judgements", "score": "answers", "learn": "steps"}


class Bars:
    """One bar at a time on a terminal, a line now and then elsewhere. `now` returns seconds."""

    def __init__(self, console: Console | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self.console = console or Console(file=cast(IO[str], Lasting(sys.stderr)), highlight=False, markup=False)
        self.now = now
        self._work: Work | None = None
        self._said = 0.0
        self._live = Live(
            console=self.console,
            get_renderable=self.view,
            transient=True,
            refresh_per_second=4,
            redirect_stdout=sys.stdout.isatty(),  # a pipe keeps what it reads
        )

    def __enter__(self) -> Self:
        if self.console.is_interactive:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def show(self, what: str, done: int, total: int, loss: float | None = None) -> None:
        """Show how much of `what` is done; a new `what` starts a new bar. With a loss, optimizer steps are counted."""
        if self._work is None or what != self._work.what:
            self.start(what, total, UNITS["learn"] if loss is not None else "", done)
        self.advance(done, "" if loss is None else f"loss {decimals(loss)}")
        if done == total:
            self.end()

    def start(self, what: str, total: int, unit: str = "", done: int = 0) -> None:
        now = self._said = self.now()
        self._work = Work(what, unit, total, now, done, done, now)

    def advance(self, done: int, note: str = "") -> None:
        if self._work is None:
            return
        self._work = replace(self._work, done=done, at=self.now(), note=note)
        if not self.console.is_interactive and self.now() - self._said >= EVERY:
            self.say(self.line(self._work))
            self._said = self.now()

    def end(self) -> None:
        self._work = None

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(text, soft_wrap=not self.console.is_interactive)

    def line(self, work: Work) -> str:
        return f"{work.what}: {', '.join(work.facts(self.now()))}"

    def headings(self, work: Work | None) -> list[str]:
        return [work.what if work else ""]

    def view(self) -> RenderableType:
        """The lines that change. Their number is constant, so that the lines above stay in place."""
        work = self._work if self._work and self.now() - self._work.began >= PATIENCE else None
        headings = [Text(line, no_wrap=True, overflow="ellipsis") for line in self.headings(work)]
        return Group(*headings, self._bar(work) if work else Text(self.idle()))

    def idle(self) -> str:
        """The line in place of a bar while nothing can be counted."""
        return ""

    def _bar(self, work: Work) -> RenderableType:
        bar = ProgressBar(total=max(work.total, 1), completed=work.done, width=min(40, self.console.width // 4))
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_row(bar, Text("  ".join(work.facts(self.now())), no_wrap=True, overflow="ellipsis"))
        return grid


class Display(Bars):
    """The progress of a run, from the chunks on their way into the store and the learner's steps.

    `until` is the last round to play. With it, the time left for the whole run is estimated from the rounds played
    since the display began.
    """

    def __init__(
        self,
        store: DuckStore,
        run: str,
        until: int | None = None,
        *,
        console: Console | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store, self.run, self.until = store, run, until
        self._round: Round | None = None
        self._round_began = 0.0
        self._whole: bool | None = None  # whether the round is played from its beginning; None: unknown yet
        self._rounds: list[float] = []  # seconds of each whole round played
        self._step: tuple[str, float] | None = None  # the current step, and when it began
        super().__init__(console, now)  # last, because it draws

    def call(self, step: Run, *args: Any) -> Any:
        rnd: Round = args[0]
        if self._round is None or rnd.index != self._round.index:
            self._round_began, self._whole = self.now(), None
        self._round, self._step = rnd, (step.__name__, self.now())
        try:
            return step(*args)
        finally:
            self._step = None
            self.end()

    def on_chunk(self, step: str, total: int, chunks: Iterator[Sequence[Record]]) -> Iterator[Sequence[Record]]:
        pairs = step == "score" and self._step is not None and self._step[0] == "score"
        per = 2 if pairs else 1  # two answers per pair
        if step == "sample" and self._round and self._whole is None:
            self._whole = total == len(self._round.prompt_ids)
        if total:
            self.start(STEPS[step], total // per, "pairs" if pairs else UNITS[step])
        done = 0
        for chunk in chunks:
            yield chunk  # resumes when the store has committed it
            done += len({r.prompt_id for r in chunk if hasattr(r, "prompt_id")}) if step == "sample" else _made(chunk)
            self.advance(done // per)
        self.end()

    def learning(self, done: int, total: int, loss: float) -> None:
        self.show(STEPS["learn"], done, total, loss)

    def round_done(self, following: Round) -> None:
        """Print one line on the finished round, and about how long the others will take."""
        from sparring.cli.tables import round_line
        from sparring.flows.run.standing import summaries

        if self._whole and following.index > 1:
            self._rounds.append(self.now() - self._round_began)
        self._round, self._round_began = following, self.now()
        self._whole = None
        row = next(r for r in summaries(self.store, self.run) if r["round"] == following.index - 1)
        self.say(round_line(row))
        if not self.console.is_interactive and (left := self._run_left()):
            self.say(f"the run: {left}")

    def headings(self, work: Work | None) -> list[str]:
        if self._round is None:
            return ["starting", ""]
        of = "" if self.until is None else f" of {self.until}"
        left = self._run_left()
        if self.until is not None and self._round.index > self.until:
            return ["ending", ""]
        return [f"round {self._round.index}{of}" + (f", {left}" if left else ""), self._doing(work)]

    def line(self, work: Work) -> str:
        line = f"{self.headings(None)[0].partition(',')[0]}, {super().line(work)}"
        left = self._run_left()
        return f"{line}; the run: {left}" if left else line

    def idle(self) -> str:
        return clock(self.now() - self._step[1]) if self._shown_step() and self._step else ""

    def _doing(self, work: Work | None) -> str:
        step = self._shown_step()
        if step is None or self._round is None:
            return ""
        inner = f": {work.what}" if work and work.what != STEPS[step] else ""
        if self._round.index == 0:
            return f"measuring the initial policy{inner}"
        return f"step {list(STEPS).index(step) + 1} of {len(STEPS)}, {STEPS[step]}{inner}"

    def _shown_step(self) -> str | None:
        step = self._step
        return step[0] if step and self.now() - step[1] >= PATIENCE else None

    def _run_left(self) -> str:
        if self.until is None or self._round is None:
            return ""
        return about(run_left(self._rounds, self.now() - self._round_began, self.until - self._round.index + 1))


def _made(chunk: Sequence[Record]) -> int:
    """The number of records that were asked for, without the calls that judgements took."""
    return sum(not isinstance(record, JudgeCall) for record in chunk)
