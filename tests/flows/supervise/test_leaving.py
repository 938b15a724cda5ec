"""SIGUSR1 at any chunk: the run leaves when that chunk is stored, and played on it is an undisturbed one."""

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sparring.flows.config import Steps
from sparring.flows.supervise.guard import Guard
from sparring.flows.supervise.leaving import leave_if_asked
from sparring.flows.supervise.step_limits import beating, limited
from sparring.loop.errors import SavedAndLeft
from sparring.loop.types import Record
from tests.helpers.fake_loop import contents
from tests.helpers.hanging import Trap, parts, play_one_round

pytestmark = pytest.mark.slow


class Signals:
    """An `on_chunk` that sends SIGUSR1 to this process when the chunk of a number is made."""

    def __init__(self, at: int) -> None:
        self.at, self.chunks, self.records = at, 0, 0

    def on_chunk(self, step: str, total: int, chunks: Iterator[Sequence[Record]]) -> Iterator[Sequence[Record]]:
        for chunk in chunks:
            self.chunks += 1
            self.records += len(chunk)
            if self.chunks == self.at:
                os.kill(os.getpid(), signal.SIGUSR1)
            yield chunk


def play(store: Path, signals: Signals) -> None:
    made = parts(store, Trap(), beating(signals.on_chunk))
    with Guard() as guard:
        play_one_round(made, limited(guard, Steps()))


def test_the_run_leaves_with_the_chunk_stored_and_is_resumed(tmp_path: Path) -> None:
    whole = Signals(0)
    play(tmp_path / "undisturbed.duckdb", whole)
    wanted = contents(tmp_path / "undisturbed.duckdb")
    assert whole.chunks > 5
    for at in range(1, whole.chunks, 3):
        store, before, after = tmp_path / f"{at}.duckdb", Signals(at), Signals(0)
        with pytest.raises(SavedAndLeft):
            play(store, before)
        assert before.chunks == at
        play(store, after)
        assert before.records + after.records == whole.records, "what was made is not made again"
        assert contents(store) == wanted


def test_a_step_does_not_begin_when_the_run_was_asked_to_leave() -> None:
    begun = []

    def judge() -> None:
        begun.append("judge")

    with Guard() as guard:
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(SavedAndLeft) as left:
            limited(guard, Steps())(judge)
    assert begun == [] and left.value.exit_code == 75
    with Guard() as guard:  # the next run of this process was not asked
        limited(guard, Steps())(judge)
    assert begun == ["judge"]


def test_a_program_keeps_its_own_handler() -> None:
    heard: list[int] = []

    def own(number: int, frame: Any) -> None:
        heard.append(number)

    before = signal.signal(signal.SIGUSR1, own)
    try:
        with Guard():
            os.kill(os.getpid(), signal.SIGUSR1)
            leave_if_asked()
        assert heard == [signal.SIGUSR1] and signal.getsignal(signal.SIGUSR1) == own
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_the_handler_is_gone_with_the_guard() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with Guard():
        assert signal.getsignal(signal.SIGUSR1) != before
    assert signal.getsignal(signal.SIGUSR1) == before
