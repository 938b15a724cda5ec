"""A loop of shipped fakes in which one part hangs, played through `limited` by a process of its own.

python -m tests.helpers.hanging STORE HOW          hang in each of the steps in turn, then play to the end
python -m tests.helpers.hanging STORE HOW STEP     hang in this step without a limit, until SIGTERM comes
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sparring.flows.config import Steps
from sparring.flows.supervise.guard import Guard
from sparring.flows.supervise.step_limits import beating, limited
from sparring.loop.errors import StepTimeout
from sparring.loop.evaluator import RivalEvaluator
from sparring.loop.fakes import FakeJudge, FakeLearner, FakeSampler
from sparring.loop.pairing.pipeline import pairing
from sparring.loop.parts import Parts, Run, call, passthrough
from sparring.loop.round import play, round_zero
from sparring.loop.types import (
    Checkpoint,
    Completion,
    Divergence,
    Evaluation,
    Experience,
    Group,
    Judgement,
    LogProb,
    Prompt,
    PromptOutcome,
    Update,
    UpdateStep,
)
from sparring.loop.types import Round as Rnd
from sparring.store.store import DuckStore
from tests.helpers.fake_loop import INITIAL, RUN, prompts

STEPS = ("sample", "judge", "pair", "score", "learn", "evaluate")
TIMEOUT, GRACE = 0.4, 0.6


def sleep_and_forget_a_child() -> None:
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    time.sleep(1000)


def hang_with_the_interpreter() -> None:
    """Lock a mutex twice, the interpreter held, so that no signal is ever handled; with a child and a fork about."""
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    if os.fork() == 0:  # has the environment that its process began with, and so no mark of the guard
        os.setsid()
        time.sleep(1000)
    native, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
    native.pthread_mutex_lock(mutex)
    native.pthread_mutex_lock(mutex)


def hang_without_the_interpreter() -> None:
    """The same, but other threads run on: a rendezvous that waits for processes that never come is like this."""
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    native, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    native.pthread_mutex_lock(mutex)
    native.pthread_mutex_lock(mutex)


HANGS = {
    "soft": sleep_and_forget_a_child,
    "native": hang_with_the_interpreter,
    "released": hang_without_the_interpreter,
}


class Trap:
    """Hangs once, in the step that it is set for. What a step makes comes before it, so some of it may be stored."""

    def __init__(self, reached: Path | None = None) -> None:
        self.step, self.how, self.reached = "", "", reached

    def set(self, step: str, how: str) -> None:
        self.step, self.how = step, how

    def run(self, step: Run, *args: Any) -> Any:
        self.within = step.__name__
        return step(*args)

    def __call__(self) -> None:
        if self.step and self.step == self.within:
            if self.reached:
                self.reached.write_text(self.step)
            self.step = ""
            HANGS[self.how]()
            raise AssertionError("the hang came to an end by itself")


class Sampler(FakeSampler):
    def __init__(self, trap: Trap) -> None:
        super().__init__({"train": 3, "eval": 1})
        self.trap = trap

    def sample(self, rnd: Rnd, prompts: Sequence[Prompt]) -> Iterator[list[Completion | PromptOutcome]]:
        yield from super().sample(rnd, prompts)
        self.trap()


class Judge(FakeJudge):
    def __init__(self, trap: Trap) -> None:
        super().__init__()
        self.trap = trap

    def judge(self, groups: Sequence[Group]) -> Iterator[list[Judgement]]:
        yield from super().judge(groups)
        self.trap()


class Learner(FakeLearner):
    def __init__(self, trap: Trap) -> None:
        self.trap = trap

    def score(self, checkpoint: Checkpoint, rows: Any) -> Iterator[list[LogProb]]:
        yield from super().score(checkpoint, rows)
        self.trap()

    def diverge(self, policy: Checkpoint, reference: Checkpoint, rows: Any) -> Iterator[list[Divergence]]:
        yield from super().diverge(policy, reference, rows)
        self.trap()

    def learn(self, rnd: Rnd, pairs: Any) -> tuple[Checkpoint, Update, list[UpdateStep]]:
        self.trap()
        return super().learn(rnd, pairs)


class Evaluator(RivalEvaluator):
    trap: Trap

    def evaluate(
        self, rnd: Rnd, candidate: Experience, rival: Experience, divergences: Sequence[float]
    ) -> Sequence[Evaluation]:
        self.trap()
        return super().evaluate(rnd, candidate, rival, divergences)


def parts(store: Path, trap: Trap, on_chunk: Any = passthrough) -> Parts:
    train, held_out = prompts("train", 2), prompts("eval", 1)
    build_pairs, evaluator = pairing("best_worst"), Evaluator(gate=None)
    evaluator.trap = trap

    def pairing_that_hangs(rnd: Rnd, experience: Experience) -> Any:
        trap()
        return build_pairs(rnd, experience)

    made = Parts(
        DuckStore(store), Sampler(trap), Judge(trap), pairing_that_hangs, Learner(trap), evaluator,
        tuple(p.id for p in train), tuple(p.id for p in held_out), per_round=2, on_chunk=on_chunk,
    )  # fmt: skip
    made.store.add([[INITIAL, *train, *held_out]])
    return made


def play_one_round(made: Parts, run: Run = call) -> Rnd:
    rnd = made.store.last_round(RUN) or round_zero(RUN, INITIAL)  # type: ignore[attr-defined]
    while rnd.index <= 1:
        rnd = play(rnd, made, run)
    return rnd


def hang_in(steps: Sequence[str], how: str, store: Path, timeout: float, grace: float) -> None:
    """On a busy machine a step may take its time before it comes to the trap: then it is played again, with more."""
    trap = Trap(store.with_suffix(".reached"))
    with Guard(grace=grace, error_file=store.with_suffix(".error")) as guard:
        made = parts(store, trap, beating(passthrough))
        for step in steps:
            trap.set(step, how)
            seconds = timeout
            while trap.step:
                limits = Steps.model_validate({step: {"timeout": seconds}})
                try:
                    play_one_round(made, limited(guard, limits, trap.run))
                except StepTimeout as error:
                    said, seconds = str(error), 2 * seconds
            print(json.dumps([step, said]), flush=True)
    play_one_round(made)
    print(json.dumps(["complete"]), flush=True)


def each_in_a_process(how: str, store: Path) -> None:
    """As `hang_in`, when the process does not outlive its hang. Forks, for loading DuckDB takes a second."""
    reached = store.with_suffix(".reached")
    for step in STEPS:
        patience = 1
        while not reached.exists() or reached.read_text() != step:
            began = time.monotonic()
            if (pid := os.fork()) == 0:
                hang_in([step], how, store, patience * TIMEOUT, patience * GRACE)
                os._exit(0)
            _, status = os.waitpid(pid, 0)
            took, patience = time.monotonic() - began, 2 * patience
        code, said = os.waitstatus_to_exitcode(status), store.with_suffix(".error").read_text()
        print(json.dumps([step, code, took, said]), flush=True)
    play_one_round(parts(store, Trap()))
    print(json.dumps(["complete"]), flush=True)


def until_terminated(how: str, store: Path, step: str) -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # as `spar` does
    trap = Trap(store.with_suffix(".reached"))
    with Guard(error_file=store.with_suffix(".error")) as guard:
        made = parts(store, trap, beating(passthrough))
        trap.set(step, how)
        play_one_round(made, limited(guard, Steps(), trap.run))


if __name__ == "__main__":
    store, how = Path(sys.argv[1]), sys.argv[2]
    if len(sys.argv) > 3:
        until_terminated(how, store, sys.argv[3])
    elif how == "native":
        each_in_a_process(how, store)
    else:
        hang_in(STEPS, how, store, TIMEOUT, grace=30)
