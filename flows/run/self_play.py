"""The loop as a Prefect flow. Without Prefect, the same rounds run by `flows.run.rounds`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any, Protocol

from sparring.flows.compose.build import Loop, Prepared, build, prepare
from sparring.flows.compose.learner import silent
from sparring.flows.config import Config, Steps
from sparring.flows.run.prefect_server import quiet_server
from sparring.flows.run.rounds import RunOutcome, operate
from sparring.loop.parts import Run, call, passthrough
from sparring.loop.types import Record, Round


def as_task(steps: Steps, step: Run, *args: Any, inside: Run = call) -> Any:
    """Call a step as a Prefect task. Prefect caches nothing, because the store remembers what is done.

    A failed step is retried from what the store has. Errors that a person must act on are not retried.
    """
    from prefect import task
    from prefect.cache_policies import NO_CACHE

    def closed() -> Any:  # without parameters, which Prefect would inspect: they hold the engine
        return inside(step, *args)

    retries = getattr(steps, step.__name__).retries
    settings: dict[str, Any] = {
        "name": f"{step.__name__}-{args[0].index}",
        "retries": retries,
        "retry_delay_seconds": [steps.backoff * 2**i for i in range(retries)],
        "retry_condition_fn": _retriable,
        "cache_policy": NO_CACHE,
        "persist_result": False,
    }
    return task(closed, **settings)()


def play_as_tasks(
    loop: Loop, until: int, each: Callable[[Round], None] = lambda rnd: None, inside: Run = call
) -> RunOutcome:
    """Play up to round `until` within a flow; each step is a task of the flow."""
    return operate(loop, until, partial(as_task, loop.config.steps, inside=inside), each)


def _retriable(task: Any, run: Any, state: Any) -> bool:
    from sparring.loop.errors import SparError

    error = state.result(raise_on_failure=False)
    return isinstance(error, Exception) and not isinstance(error, SparError)


def self_play_flow(
    make: Callable[[Config], Loop] = lambda config: build(prepare(config)),
    each: Callable[[Round], None] = lambda rnd: None,
    inside: Run = call,
) -> Any:
    """The flow of `spar run`. `make` makes the loop, and `inside` calls a step within its task."""
    from prefect import flow

    @flow(name="self-play", persist_result=False)
    def self_play(config: Config) -> RunOutcome:
        with closing(make(config)) as loop:
            return play_as_tasks(loop, config.rounds, each, inside)

    return self_play


class Display(Protocol):
    """The protocol of a progress display."""

    def on_chunk(self, step: str, total: int, chunks: Iterator[Sequence[Record]]) -> Iterator[Sequence[Record]]: ...
    def learning(self, done: int, total: int, loss: float) -> None: ...
    def call(self, step: Run, *args: Any) -> Any: ...
    def round_done(self, following: Round) -> None: ...


class Silent:
    """Shows nothing."""

    on_chunk = staticmethod(passthrough)
    learning = staticmethod(silent)
    call = staticmethod(call)

    def round_done(self, following: Round) -> None:
        pass


def run_bare(ready: Prepared, display: Display) -> RunOutcome:
    """Play the config's rounds in this process, without Prefect."""
    with closing(build(ready, on_chunk=display.on_chunk, progress=display.learning)) as loop:
        return operate(loop, ready.config.rounds, display.call, display.round_done)


def run_as_flow(ready: Prepared, display: Display) -> RunOutcome:
    """Play the config's rounds as the flow `self-play`. Prefect's server starts while the engine loads."""
    with quiet_server() as wait:
        loop = build(ready, on_chunk=display.on_chunk, progress=display.learning)
        loop.warm()
        wait()
        ended: RunOutcome = self_play_flow(lambda _: loop, display.round_done, display.call)(ready.config)
        return ended
