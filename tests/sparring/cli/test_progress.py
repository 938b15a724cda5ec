"""What a person sees while a run is live: fakes that take their time on a clock of ours, and a real terminal."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sparring.cli.pace import rate, run_left, time_left
from sparring.cli.progress import Bars, Display
from sparring.loop.errors import StepError
from sparring.loop.evaluator import RivalEvaluator
from sparring.loop.fakes import FakeJudge, FakeLearner, FakeSampler
from sparring.loop.formatting import about, clock, speed
from sparring.loop.pairing.pipeline import pairing
from sparring.loop.parts import Parts
from sparring.loop.round import play, round_zero
from sparring.loop.types import Group, JudgeCall, Judgement, LogProb, Prompt, Round, RunInfo
from sparring.store.store import DuckStore
from tests.helpers.fake_loop import INITIAL, RUN, prompts
from tests.helpers.paths import ROOT


def test_rates_and_what_is_left_are_known_or_none() -> None:
    assert rate(30, 20.0) == 1.5
    assert rate(0, 20.0) is None  # nothing made yet: no rate, rather than 0
    assert rate(3, 0.0) is None
    assert time_left(12, 1.5) == 8.0
    assert time_left(12, None) is None
    assert run_left([], 100.0, 3) is None
    assert run_left([100.0, 200.0], 30.0, 3) == 120.0 + 2 * 150.0
    assert run_left([100.0], 170.0, 2) == 100.0  # overdue: at any moment
    assert run_left([100.0], 1.0, 0) is None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "about 1 s left"),
        (59.4, "about 59 s left"),
        (60.0, "about 1 min left"),
        (59 * 60.0 + 31, "about 1 h left"),
        (2.5 * 3600, "about 2 h 30 min left"),
        (24 * 3600.0, "about 1 d left"),
        (77.4 * 3600, "about 3 d 5 h left"),
        (None, ""),
    ],
)
def test_times_left_are_said_as_exactly_as_they_are_known(seconds: float | None, said: str) -> None:
    assert about(seconds) == said


def test_clocks_and_speeds_are_easy_to_read() -> None:
    assert [clock(s) for s in (7.9, 760, 3723)] == ["0:07", "12:40", "1:02:03"]
    assert [speed(r, "pairs") for r in (123.4, 12.34, 1.234)] == ["123 pairs/s", "12.3 pairs/s", "1.23 pairs/s"]
    assert speed(1 / 60, "steps") == "1.00 steps/min"
    assert speed(1 / 3600, "prompts") == "1.00 prompts/h"
    assert (speed(2.0, ""), speed(None, "pairs")) == ("2.00/s", "")


@dataclass
class Clock:
    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def wait(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass
class Session:
    """A display on a clock of its own; parts that take their time on it; and every frame that was seen."""

    store: DuckStore
    terminal: bool = True
    until: int | None = 3
    written: StringIO = field(default_factory=StringIO)
    clock: Clock = field(default_factory=Clock)
    frames: list[list[str]] = field(default_factory=list)
    dies_in_learning: bool = False
    display: Display = field(init=False)

    def __post_init__(self) -> None:
        console = Console(file=self.written, force_terminal=self.terminal, width=100, highlight=False, markup=False)
        self.display = Display(self.store, RUN, self.until, console=console, now=self.clock)

    def wait(self, seconds: float) -> None:
        self.clock.wait(seconds)
        self.frames.append(drawn(self.display))

    def play(self, rounds: int) -> None:
        """As flows.run.self_play does, one round after the other."""
        train, held_out = prompts("train", 2), prompts("eval", 1)
        ids = tuple(p.id for p in train), tuple(p.id for p in held_out)
        learner, judge, sampler = Learning(self), Judging(self), Sampling(self)
        parts = Parts(
            self.store, sampler, judge, pairing("best_worst"), learner, RivalEvaluator(gate=None), *ids, 2,
            on_chunk=self.display.on_chunk,
        )  # fmt: skip
        self.store.add([[RunInfo(RUN, "name", 0, {}, "", {}), INITIAL, *train, *held_out]])
        rnd = self.store.last_round(RUN) or round_zero(RUN, INITIAL)
        with self.display:
            while rnd.index <= rounds:
                rnd = play(rnd, parts, self.display.call)
                self.display.round_done(rnd)


class Sampling(FakeSampler):
    """3 min a prompt."""

    def __init__(self, session: Session) -> None:
        super().__init__({"train": 4, "eval": 1})
        self.session = session

    def sample(self, rnd: Round, prompts: Sequence[Prompt]) -> Iterator[Any]:
        for chunk in super().sample(rnd, prompts):
            self.session.wait(180)
            yield chunk


class Judging(FakeJudge):
    """1 min a prompt, and a call of a model beside each judgement."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def judge(self, groups: Sequence[Group]) -> Iterator[Any]:
        for chunk in super().judge(groups):
            self.session.wait(60)
            yield [*chunk, *(call_of(judgement) for judgement in chunk)]


def call_of(judgement: Judgement) -> JudgeCall:
    return JudgeCall(f"call_{judgement.id}", "fake", judgement.id, 1, "m", "", "", None, None, None, 0.0)


class Learning(FakeLearner):
    """5 optimizer steps of 60 s."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def learn(self, rnd: Round, pairs: Any) -> Any:
        if self.session.dies_in_learning:
            raise Killed
        for step in range(1, 6):
            self.session.wait(60)
            self.session.display.learning(step, 5, 0.75 - step / 100)
        return super().learn(rnd, pairs)


def drawn(bars: Bars) -> list[str]:
    """The lines that a terminal shows now, without what is drawn of the bar."""
    paper = Console(file=StringIO(), width=100, force_terminal=False)
    paper.print(bars.view())
    assert isinstance(paper.file, StringIO)
    return [re.sub("^[━╸╺ ]+", "", line).rstrip() for line in paper.file.getvalue().splitlines()]


# Worked by hand. Round 0 lasts 180 + 60 = 240 s; a round 2 x 180 + 2 x 60 + 5 x 60 + 240 = 1020 s = 17 min.
@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Session:
    session = Session(DuckStore(tmp_path_factory.mktemp("played") / "store.duckdb"))
    session.play(2)
    return session


def test_a_terminal_shows_round_step_rate_and_times(played: Session) -> None:
    zeroth, first, second = played.frames[:2], played.frames[2:13], played.frames[13:]
    assert zeroth[0] == ["round 0 of 3", "measuring the initial policy: sampling", "0/1  3:00"]
    assert zeroth[1] == ["round 0 of 3", "measuring the initial policy: judging", "0/1  1:00"]
    assert first[0] == ["round 1 of 3", "step 1 of 6, sampling", "0/2  3:00"]
    assert first[1] == ["round 1 of 3", "step 1 of 6, sampling", "1/2  20.0 prompts/h  6:00  about 1 s left"]
    assert first[3][1:] == ["step 2 of 6, judging", "4/8  4.00 judgements/min  2:00  about 1 s left"]
    assert first[4] == ["round 1 of 3", "step 5 of 6, learning", "1:00"]  # the first step is not done yet
    assert first[6][2] == "2/5  1.00 steps/min  2:00  about 2 min left  loss 0.730"
    assert first[9][1] == "step 6 of 6, evaluating: sampling"
    assert [frame[0] for frame in (*zeroth, *first) if "left" in frame[0]] == []  # nothing to tell it by
    assert second[0][0] == "round 2 of 3, about 31 min left"  # 2 x 1020 - 180 = 1860 s
    assert second[-1][0] == "round 2 of 3, about 17 min left"


def test_what_made_no_pair_shows_no_bar(played: Session) -> None:
    assert {frame[1].split(",")[0] for frame in played.frames if frame[1].startswith("step")} == {
        f"step {k} of 6" for k in (1, 2, 5, 6)
    }


def test_elsewhere_lines_come_now_and_then(tmp_path: Path) -> None:
    session = Session(DuckStore(tmp_path / "store.duckdb"), terminal=False)
    session.play(2)
    lines = session.written.getvalue().splitlines()
    assert "\x1b" not in session.written.getvalue()
    assert lines[0] == "round 0 of 3, sampling: 1/1, 20.0 prompts/h, 3:00"
    assert "round 1 of 3, sampling: 1/2, 20.0 prompts/h, 3:00, about 3 min left" in lines
    assert "round 1 of 3, learning: 3/5, 1.00 steps/min, 2:00, about 2 min left, loss 0.720" in lines
    told = "round 2 of 3, sampling: 1/2, 20.0 prompts/h, 3:00, about 3 min left; the run: about 31 min left"
    assert told in lines
    assert [line for line in lines if line.startswith("the run")] == [
        "the run: about 34 min left",
        "the run: about 17 min left",
    ]
    assert len([line for line in lines if re.match("round 2: 2 prompts = .* (accepted|REJECTED.*)$", line)]) == 1


def test_without_an_end_no_end_is_told(tmp_path: Path) -> None:
    session = Session(DuckStore(tmp_path / "none.duckdb"), until=None)

    def sample(rnd: Round) -> None:
        session.wait(60)

    session.display.call(sample, round_zero(RUN, INITIAL))
    assert session.frames == [["round 0", "measuring the initial policy", "1:00"]]


def test_scoring_counts_pairs_in_the_round_and_answers_in_its_evaluation(tmp_path: Path) -> None:
    session = Session(DuckStore(tmp_path / "none.duckdb"))

    def work(rnd: Round) -> None:
        chunks = ([LogProb(f"l{k}{half}", "c", "w", -1.0, 3, [-0.5, -0.25, -0.25]) for half in "cr"] for k in range(3))
        for _ in session.display.on_chunk("score", 6, chunks):
            session.wait(10)

    for name in ("score", "evaluate"):
        work.__name__ = name
        session.display.call(work, replace(round_zero(RUN, INITIAL), index=1))
    assert [frame[1:] for frame in session.frames[2::3]] == [
        ["step 4 of 6, scoring", "2/3  6.00 pairs/min  0:30  about 1 s left"],
        ["step 6 of 6, evaluating: scoring", "4/6  12.0 answers/min  0:30  about 1 s left"],
    ]


def test_lines_do_not_come_more_often() -> None:
    written, clock = StringIO(), Clock()
    bars = Bars(Console(file=written, force_terminal=False), clock)
    bars.start("training", 100)
    for done in range(1, 11):
        clock.wait(4)
        bars.advance(done)
    assert written.getvalue().splitlines() == [
        "training: 4/100, 15.0/min, 0:16, about 6 min left",
        "training: 8/100, 15.0/min, 0:32, about 6 min left",
    ]


def test_work_that_is_done_at_once_is_not_shown() -> None:
    clock = Clock()
    bars = Bars(Console(file=StringIO(), force_terminal=True), clock)
    bars.start("features", 10, done=9)
    clock.wait(0.4)
    assert drawn(bars) == ["", ""]
    clock.wait(0.1)
    assert drawn(bars) == ["features", "9/10  0:00"]
    clock.wait(1.5)
    bars.advance(10)
    assert drawn(bars) == ["features", "10/10  30.0/min  0:02"]  # one made here in 2 s, not ten


class Killed(Exception):
    pass


@pytest.mark.slow
def test_a_resumed_round_does_not_count_as_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    killed = Session(DuckStore(path))
    killed.dies_in_learning = True
    with pytest.raises(Killed):
        killed.play(2)
    again = Session(DuckStore(path))
    again.play(2)
    assert again.frames[0] == ["round 1 of 3", "step 5 of 6, learning", "1:00"]  # what is done is not seen again
    assert len(again.frames) == 5 + 2 + 11
    assert {frame[0] for frame in again.frames} == {"round 1 of 3", "round 2 of 3"}  # no end is told
    again.play(3)
    assert again.frames[-1][0] == "round 3 of 3, about 1 s left"


def test_a_step_that_fails_takes_its_bar_along(tmp_path: Path) -> None:
    session = Session(DuckStore(tmp_path / "none.duckdb"))

    def evaluate(rnd: Round) -> None:
        def chunks() -> Iterator[list[Judgement]]:
            session.wait(60)
            raise StepError("the judge is silent")
            yield []

        list(session.display.on_chunk("judge", 4, chunks()))

    with pytest.raises(StepError):
        session.display.call(evaluate, round_zero(RUN, INITIAL))
    session.wait(60)
    assert session.frames == [
        ["round 0 of 3", "measuring the initial policy: judging", "0/4  1:00"],
        ["round 0 of 3", "", ""],
    ]


SCRIPT = """
import time
from sparring.cli.progress import Bars
with Bars() as bars:
    for done in range(1, 9):
        bars.show("training", done, 100, 0.5)
        bars.say(f"at {done}")
        time.sleep(0.2)
    print("data")
"""


def terminal(**environment: str) -> tuple[str, str]:
    """What the script writes to stderr, a real pseudo-terminal, and to stdout, a pipe."""
    ours, theirs = pty.openpty()
    known = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env=known | {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT)} | environment,
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            found = os.read(ours, 65536)
        except OSError:  # how Linux says that the other side has closed
            break
        if not found:
            break
        seen += found
    os.close(ours)
    out = child.communicate(timeout=30)[0]
    assert child.returncode == 0
    return seen.decode(), out


COLOR = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")


@pytest.mark.slow
def test_in_a_real_terminal_lines_change_in_place_and_data_stays_apart() -> None:
    seen, out = terminal()
    assert out == "data\n"
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    assert "training" in plain
    assert re.search(r"[4-8]/100  \d\.\d+ steps/s  0:0\d  about \d+ (s|min) left  loss 0.500", plain)
    assert "at 8" in plain
    assert "\x1b[1A" in seen  # the lines are drawn over
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")  # the cursor is back
    assert COLOR.search(seen)


@pytest.mark.slow
def test_no_color_is_respected() -> None:
    seen, _ = terminal(NO_COLOR="1")
    assert "training" in seen
    assert not COLOR.search(seen)


@pytest.mark.slow
def test_a_dumb_terminal_gets_lines() -> None:
    seen, _ = terminal(TERM="dumb")
    assert "\x1b" not in seen
    assert "at 8" in seen


@pytest.mark.slow
def test_a_reader_that_has_gone_ends_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=writing,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=30,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stdout) == (0, "data\n")
