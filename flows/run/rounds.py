"""Play rounds as an operator wants them: each step within its limits, stopped by rules, waiting for people, tidy."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparring.flows.compose.build import Loop
from sparring.flows.run.decisions import awaited
from sparring.flows.run.retention import prune
from sparring.flows.run.trackers import Trackers
from sparring.flows.supervise.guard import guarding
from sparring.flows.supervise.step_limits import limited
from sparring.loop.errors import StoreError
from sparring.loop.parts import Run, call
from sparring.loop.round import following, play
from sparring.loop.types import Checkpoint, Decision, Round
from sparring.store import history
from sparring.store.publish import publish
from sparring.store.store import DuckStore


@dataclass(frozen=True)
class RunOutcome:
    """Where playing ended: the round that would be next, and what it waits for, if it does."""

    next: Round
    waiting: str | None = None


def operate(loop: Loop, until: int, run: Run = call, each: Callable[[Round], None] = lambda rnd: None) -> RunOutcome:
    """Play up to round `until` whatever the store does not have; `run` calls a step, `each` hears of every round's end.

    Raises Stopped when a rule of the config is broken. An error stays in the run's folder until the next success.
    """
    file = error_file(loop.store, loop.info.id)
    folder = file.parent / "trackers"
    trackers = Trackers(loop.config.trackers, loop.info.id, folder, loop.info.config)
    with guarding(file) as guard, last_error(file), closing(trackers):
        steps = limited(guard, loop.config.steps, run)
        return _play(loop, until, published(loop.store, steps) if loop.config.keep.read_copy else steps, each, trackers)


def published(store: DuckStore, run: Run) -> Run:
    """A `run` for loop.round.play after each step of which the read copy of the store is brought up to date."""

    def after(step: Run, *args: Any) -> Any:
        result = run(step, *args)
        publish(store.db)
        return result

    return after


def _play(loop: Loop, until: int, run: Run, each: Callable[[Round], None], trackers: Trackers) -> RunOutcome:
    rnd = loop.start
    while rnd.index <= until:
        decided = history.decision(loop.store.db, rnd.run, rnd.index)
        if decided is not None:  # the round is over, also where it was given up half-way
            rnd = following(rnd, _chosen(loop.store, decided), loop.parts)
            continue
        rnd = play(rnd, loop.parts, run)
        each(rnd)
        trackers.log_round(loop.store, rnd.run, rnd.index - 1)
        prune(loop.store, rnd.run, loop.config)
        if why := awaited(loop.store, rnd.run, loop.config):
            return RunOutcome(rnd, why)
    return RunOutcome(rnd)


def _chosen(store: DuckStore, decision: Decision) -> Checkpoint:
    checkpoint = history.checkpoint(store.db, decision.policy_id)
    if checkpoint is None:
        raise StoreError(f"{decision.id} goes on from {decision.policy_id}, which {store.db.path} lacks; decide anew")
    return checkpoint


def rounds_done(store: DuckStore, run: str) -> int:
    """How many rounds of a run are over; measuring the initial policy is not one."""
    return max(0, history.rounds_settled(store.db, run))


def error_file(store: DuckStore, run: str) -> Path:
    """Where the last error of a run is kept, for `spar status`."""
    return store.db.path.parent / "runs" / run / "error.txt"


@contextmanager
def last_error(file: Path) -> Iterator[None]:
    """Keep what ends this block, until a later one ends well."""
    try:
        yield
    except BaseException as error:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{type(error).__name__}: {error}\n")
        raise
    file.unlink(missing_ok=True)
