"""The loop as a Prefect flow. Take the decorators away and it still runs: see `play_rounds`."""

from collections.abc import Callable
from typing import Any

from flows.build import Loop, build, prepare
from flows.config import Config
from loop.parts import Run, call
from loop.round import evaluate, judge, learn, pair, play, sample, score
from loop.types import Round

# A step that failed is run again from what the store has; errors a person must act on are not retried.
RETRIES = {sample: 2, judge: 3, pair: 0, score: 1, learn: 1, evaluate: 2}


def play_rounds(loop: Loop, run: Run = call, each: Callable[[Round], None] = lambda rnd: None) -> Round:
    """Play the rounds that the config asks for and the store does not have; returns the round that would be next."""
    rnd = loop.start
    while rnd.index <= loop.config.rounds:
        rnd = play(rnd, loop.parts, run)
        each(rnd)
    return rnd


def as_task(step: Run, *args: Any, inside: Run = call) -> Any:
    """Call a step as a Prefect task. The store remembers what is done: a second memory in Prefect could disagree."""
    from prefect import task
    from prefect.cache_policies import NO_CACHE

    def closed() -> Any:  # no parameters: Prefect would walk through them, and they hold the engine
        return inside(step, *args)

    settings: dict[str, Any] = {
        "name": f"{step.__name__}-{args[0].index}",
        "retries": RETRIES[step],
        "retry_delay_seconds": 2,
        "retry_condition_fn": _retriable,
        "cache_policy": NO_CACHE,
        "persist_result": False,
    }
    return task(closed, **settings)()


def _retriable(task: Any, run: Any, state: Any) -> bool:
    from loop.errors import SparError

    error = state.result(raise_on_failure=False)
    return isinstance(error, Exception) and not isinstance(error, SparError)


def self_play_flow(
    make: Callable[[Config], Loop] = lambda config: build(prepare(config)),
    each: Callable[[Round], None] = lambda rnd: None,
    inside: Run = call,
) -> Any:
    """The flow object. `make` makes the parts, `inside` calls a step within its task: both let a display watch."""
    from prefect import flow

    def run(step: Run, *args: Any) -> Any:
        return as_task(step, *args, inside=inside)

    @flow(name="self-play", persist_result=False)
    def self_play(config: Config) -> str:
        loop = make(config)
        try:
            return play_rounds(loop, run, each).policy.id
        finally:
            loop.close()

    return self_play
