"""The flow on a real Prefect server, with shipped fakes for the models: what Prefect adds is how a step is called."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sparring.flows.compose.build import Loop
from sparring.flows.config import Config, parse_config
from sparring.flows.run.prefect_server import QUIET, api_server
from sparring.flows.run.rounds import RunOutcome, operate
from sparring.loop.errors import StepError
from sparring.loop.evaluator import RivalEvaluator
from sparring.loop.fakes import FakeJudge, FakeLearner, FakeSampler
from sparring.loop.pairing.pipeline import pairing
from sparring.loop.parts import Parts
from sparring.loop.round import round_zero
from sparring.loop.types import Completion, Prompt, PromptOutcome, Round, RunInfo
from sparring.store.db import rows
from sparring.store.store import DuckStore
from tests.helpers.fake_loop import INITIAL, RUN, contents, prompts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
CONFIG = {"name": "flow", "rounds": 2, "policy": {"model": "none"}, "prompts": {"train": "none", "eval": "none"}}


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    import os

    os.environ.update(QUIET | os.environ)
    with api_server() as wait:
        wait()
        yield


class Stumbling(FakeSampler):
    """Raises each of `errors` once, after its first chunk, before it works."""

    def __init__(self, errors: list[Exception]) -> None:
        super().__init__({"train": 4, "eval": 1})
        self.errors = errors

    def sample(self, rnd: Round, prompts: Sequence[Prompt]) -> Iterator[list[Completion | PromptOutcome]]:
        for chunk in super().sample(rnd, prompts):
            yield chunk
            if self.errors and rnd.index > 0:
                raise self.errors.pop(0)


def loop(path: Path, sampler: FakeSampler) -> Loop:
    train, held_out = prompts("train", 4), prompts("eval", 2)
    parts = Parts(
        DuckStore(path),
        sampler,
        FakeJudge(),
        pairing("best_worst"),
        FakeLearner(),
        RivalEvaluator(gate=None),
        tuple(p.id for p in train),
        tuple(p.id for p in held_out),
        per_round=4,
    )
    parts.store.add([[INITIAL, *train, *held_out]])
    info = RunInfo(RUN, "flow", 0, {}, "", {})
    return Loop(info, config(), parts, round_zero(RUN, INITIAL), lambda: None, lambda: None)


def config() -> Config:
    return parse_config(CONFIG, "test")


def play_flow(path: Path, sampler: FakeSampler) -> str:
    from sparring.flows.run.self_play import self_play_flow

    ended: RunOutcome = self_play_flow(lambda _: loop(path, sampler))(config())
    return ended.next.policy.id


def test_the_flow_plays_what_the_bare_loop_plays(tmp_path: Path) -> None:
    policy = play_flow(tmp_path / "flow.duckdb", Stumbling([]))
    bare = operate(loop(tmp_path / "bare.duckdb", Stumbling([])), 2)
    assert policy == bare.next.policy.id
    assert contents(tmp_path / "flow.duckdb") == contents(tmp_path / "bare.duckdb")


def test_a_passing_fault_is_retried_from_what_the_store_has(tmp_path: Path) -> None:
    play_flow(tmp_path / "whole.duckdb", Stumbling([]))
    play_flow(tmp_path / "store.duckdb", Stumbling([RuntimeError("the engine hiccuped")]))
    assert contents(tmp_path / "store.duckdb") == contents(tmp_path / "whole.duckdb")


def test_an_error_that_needs_a_person_is_not_retried(tmp_path: Path) -> None:
    sampler = Stumbling([StepError("look at this"), StepError("never reached")])
    with pytest.raises(StepError, match="look at this"):
        play_flow(tmp_path / "store.duckdb", sampler)
    assert len(sampler.errors) == 1
    with DuckStore(tmp_path / "store.duckdb").db.read() as con:  # the chunk before the fault is kept
        assert rows(con, "SELECT count(*) AS n FROM completions WHERE round = 1")[0]["n"] == 4
