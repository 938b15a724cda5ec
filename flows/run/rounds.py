"""Play rounds under operation: steps with limits, stop rules, decisions by people, pruned checkpoints."""

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
    """Where playing ended: the next round, and what it waits for, if anything."""

    next: Round
    waiting: str | None = None


def operate(loop: Loop, until: int, run: Run = call, each: Callable[[Round], None] = lambda rnd: None) -> RunOutcome:
    """Play up to round `until` what the store does not have. `run` calls a step, `each` is called after every round.

    Raises Stopped when a stop rule is broken. An error stays in the run's folder until the next success.
    """
    file = error_file(loop.store, loop.info.id)
    folder = file.parent / "trackers"
    trackers = Trackers(loop.config.trackers, loop.info.id, folder, loop.info.config)
    with guarding(file) as guard, last_error(file), closing(trackers):
        steps = limited(guard, loop.config.steps, run)
        return _play(loop, until, published(loop.store, steps) if loop.config.keep.read_copy else steps, each, trackers)


def published(store: DuckStore, run: Run) -> Run:
    """A `run` for loop.round.play that updates the store's read copy after each step."""

    def after(step: Run, *args: Any) -> Any:
        result = run(step, *args)
        publish(store.db)
        return result

    return after


def _play(loop: Loop, until: int, run: Run, each: Callable[[Round], None], trackers: Trackers) -> RunOutcome:
    rnd = loop.start
    while rnd.index <= until:
        decided = history.decision(loop.store.db, rnd.run, rnd.index)
        if decided is not None:  # the round is over, even if it was abandoned
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
        raise StoreError(
            f"{decision.id} continues from {decision.policy_id}, which {store.db.path} does not have; decide again"
        )
    return checkpoint


def rounds_done(store: DuckStore, run: str) -> int:
    """The number of finished rounds of a run; round 0 does not count."""
    return max(0, history.rounds_settled(store.db, run))


def error_file(store: DuckStore, run: str) -> Path:
    """The file with the last error of a run, which `spar status` shows."""
    return store.db.path.parent / "runs" / run / "error.txt"


@contextmanager
def last_error(file: Path) -> Iterator[None]:
    """Write the error that ends this block to a file; a later block without one removes it."""
    try:
        yield
    except BaseException as error:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{type(error).__name__}: {error}\n", encoding="utf-8")
        raise
    file.unlink(missing_ok=True)
