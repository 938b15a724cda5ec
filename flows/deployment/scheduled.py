"""The flows of deployments. A worker imports them from `sparring.scheduled`.

One run of `self_play` finishes an interrupted round or plays the next one. So a nightly schedule, or a retry after a
failed run, resumes where the last run stopped. The store, not Prefect, remembers what is done.
"""

import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Literal

from prefect import Flow, flow, runtime
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.settings import get_current_settings
from prefect.states import Completed, Failed

from sparring.flows.compose.build import Loop
from sparring.flows.config import Config, JudgeConfig
from sparring.flows.config.reward import RewardConfig
from sparring.flows.deployment.artifacts import (
    WriteReport,
    publish_metrics,
    publish_note,
    publish_report,
    publish_round,
)
from sparring.flows.run.backlog import label_backlog
from sparring.flows.run.decisions import Stopped, awaited
from sparring.flows.run.decisions import decide as decide_now
from sparring.flows.run.evaluate import evaluate_checkpoint
from sparring.flows.run.reward import prepare_reward, train_reward
from sparring.flows.run.rounds import error_file, rounds_done
from sparring.flows.run.self_play import as_task, play_as_tasks
from sparring.flows.supervise.guard import Guard
from sparring.loop.errors import SparError, StoreBusy
from sparring.loop.types import Round, RunInfo
from sparring.store.history import rounds_settled
from sparring.store.store import DuckStore

AWAITING = "AwaitingApproval"  # state name of a run that waits for a person's decision
PATIENCE = 120.0  # seconds that a run waits for another process to release its loop


def scheduled_flow(make: Callable[[Config], Loop], write: WriteReport) -> Flow[[Config, int], State[Any]]:
    """The flow of a deployment: `rounds` more rounds of the loop that `make` makes; `config.rounds` is ignored.

    It ends as Completed, as Completed with the name AwaitingApproval when a round awaits a decision, or as Failed with
    the message that the command line would print.
    """

    @flow(name="self-play", persist_result=False)
    def self_play(config: Config, rounds: int = 1) -> State[Any]:
        """Finish an interrupted round, or play the next rounds of this loop.

        Args:
            config: the loop, as in its YAML file
            rounds: the number of rounds per run
        """
        store = DuckStore(config.store)
        info = store.run(config.name) if store.db.path.exists() else None
        return _reported(lambda: _play(config, info, make, rounds, write), error_file(store, info.id) if info else None)

    return self_play


def _reported(work: Callable[[], State[Any]], error_file: Path | None = None) -> State[Any]:
    """The state that a run's work ends with, under a guard (see flows.supervise.guard).

    An error that a person can act on is the message of the failed run, without a traceback.
    """
    try:
        with Guard(error_file=error_file, flow_run=_here()):
            return work()
    except SparError as error:
        get_run_logger().error(str(error))
        return Failed(message=str(error))


def _here() -> tuple[str, str] | None:
    """Prefect's API and the id of this flow run."""
    url, flow_run_id = get_current_settings().api.url, runtime.flow_run.id
    return (url, flow_run_id) if url and flow_run_id else None


def _play(
    config: Config, info: RunInfo | None, make: Callable[[Config], Loop], rounds: int, write: WriteReport
) -> State[Any]:
    if info is not None and (why := awaited(DuckStore(config.store), info.id, config)):
        return Completed(name=AWAITING, message=why)  # before any model is loaded
    with closing(_patiently(lambda: make(config))) as loop:
        return _play_on(loop, rounds, write)


def _patiently(make: Callable[[], Loop]) -> Loop:
    """Make the loop, waiting a while if a cancelled run is still closing its engine."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return make()
        except StoreBusy:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def _play_on(loop: Loop, rounds: int, write: WriteReport) -> State[Any]:
    store, info = loop.store, loop.info
    settled = rounds_settled(store.db, info.id)

    def each(following: Round) -> None:
        if following.index - 1 > settled:  # the last finished round is visited again, with nothing missing
            publish_round(store, info, following.index - 1)

    try:
        ended = play_as_tasks(loop, rounds_done(store, info.id) + rounds, each)
    except Stopped as stop:
        publish_report(store, info, write)
        publish_note(info, "Stopped", str(stop))
        raise
    publish_report(store, info, write)
    if ended.waiting is not None:
        publish_note(info, "Awaiting a decision", ended.waiting)
        return Completed(name=AWAITING, message=ended.waiting)
    return Completed(message=f"{info.id}: {rounds_done(store, info.id)} rounds are done")


@flow(name="reward-model", persist_result=False)
def reward_model(config: RewardConfig) -> State[Any]:
    """Train a reward model, measure it on held-out pairs, and store it.

    Args:
        config: the training, as in its YAML file
    """

    def trained() -> State[Any]:
        checkpoint = train_reward(prepare_reward(config))
        return Completed(message=f"{checkpoint.id} is in {checkpoint.path}")

    return _reported(trained)


@flow(name="decide", persist_result=False)
def decide(store: str, run: str, decision: Literal["approve", "reject"], reason: str = "") -> State[Any]:
    """Approve or reject the last round of a run that awaits it.

    Args:
        store: the DuckDB file
        run: name or id of the run
        decision: approve continues as the gate said; reject continues from the policy before the round
        reason: why; kept in the store
    """

    def decided() -> State[Any]:
        outcome = decide_now(DuckStore(store), run, decision, reason=reason, by="Prefect")
        return Completed(
            message=f"{outcome.kind} of round {outcome.round} of {outcome.run}: it continues from {outcome.policy_id}"
        )

    return _reported(decided)


@flow(name="evaluate", persist_result=False)
def evaluate(config: Config, checkpoint: str | None = None, rival: str | None = None) -> State[Any]:
    """Measure a checkpoint against a rival on held-out prompts, apart from the loop.

    Args:
        config: the loop, as in its YAML file
        checkpoint: an id in the store, a model's folder or a hub id; the loop's current policy by default
        rival: like checkpoint; the loop's initial policy by default
    """

    def evaluated() -> State[Any]:
        run = partial(as_task, config.steps)
        results = [e for e in evaluate_checkpoint(config, checkpoint, rival, run=run) if e.round]
        publish_metrics(results)
        return Completed(message=", ".join(f"{e.metric} {e.value:.3f}" for e in results))

    return _reported(evaluated)


@flow(name="label", persist_result=False)
def label(judge: JudgeConfig, store: str, run: str | None = None) -> State[Any]:
    """Judge all answers in the store that this judge has not judged.

    Args:
        judge: the judge, as in a config
        store: the DuckDB file
        run: name or id of a run; every run by default
    """

    def labelled() -> State[Any]:
        entries = label_backlog(judge, store, run)
        judged, silent = sum(each.made for each in entries), sum(each.silent for each in entries)
        return Completed(message=f"{judged} judgements were made, {silent} of those without an answer")

    return _reported(labelled)
