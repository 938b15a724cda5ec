"""A loop with a language model as its judge, over real HTTP: canaries at the start, duels in rounds and evaluation."""

import json
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from sparring.flows.compose.build import Loop, build, prepare
from sparring.flows.config import parse_config
from sparring.judges.endpoint import Endpoint
from sparring.judges.llm import LLMJudge
from sparring.loop.errors import ConfigError, StepError
from sparring.loop.round import play, round_zero
from sparring.store.db import rows
from sparring.store.store import DuckStore
from tests.helpers.flaky_server import FlakyServer, never
from tests.helpers.merit_loop import parts_of
from tests.helpers.records import HELD_OUT, INFO, TRAIN, checkpoint
from tests.helpers.tiny import build_tiny_model


def ask(store: DuckStore, sql: str) -> list[dict[str, Any]]:
    with store.db.read() as con:
        return rows(con, sql)


def test_duels_make_pairs_and_win_rates(tmp_path: Path) -> None:
    store, initial = DuckStore(tmp_path / "s.duckdb"), checkpoint("initial")
    store.add([[INFO, initial, *TRAIN, *HELD_OUT]])
    with FlakyServer() as server:
        judge = LLMJudge(Endpoint("judge", base_url=server.url))
        second = play(play(round_zero(INFO.id, initial), parts_of(store, judge)), parts_of(store, judge))
        assert second.index == 2
        asked = len(server.calls)
        play(round_zero(INFO.id, initial), parts_of(store, judge))  # round 0 again: all is known
        assert len(server.calls) == asked
    assert len(ask(store, "SELECT * FROM judge_calls")) == asked
    pairs = ask(store, "SELECT chosen, rejected, p_chosen FROM pair_texts")
    assert len(pairs) == 3
    for pair in pairs:
        assert int(pair["chosen"].split()[1]) > int(pair["rejected"].split()[1])
        assert pair["p_chosen"] > 0.5
    won = {r["round"]: r["win_rate"] for r in ask(store, "SELECT round, win_rate FROM win_rates")}
    assert won[0] == 0.5  # the same answers
    assert won[1] == pytest.approx(8 / 9)  # every duel is the candidate's, with what the server gives the better one
    (bias,) = ask(store, "SELECT * FROM position_bias")
    assert (bias["disagree"], bias["duels"]) == (0.0, 3 * 3 + 2 * 2)


def test_an_endpoint_that_goes_down_stops_the_round_and_resumes_without_asking_twice(tmp_path: Path) -> None:
    store, initial = DuckStore(tmp_path / "s.duckdb"), checkpoint("initial")
    store.add([[INFO, initial, *TRAIN, *HELD_OUT]])
    patience = {"attempts": 1, "backoff": 0.001, "concurrency": 2}
    with FlakyServer() as server:
        judge = LLMJudge(Endpoint("judge", base_url=server.url, **patience))
        first = play(round_zero(INFO.id, initial), parts_of(store, judge))
        server.spoil = lambda text, before: "500"
        with pytest.raises(StepError, match=r"gave no answer to \d+ of 18 questions.*spar resume"):
            play(first, parts_of(store, judge))
        assert ask(store, "SELECT * FROM judgements") == []  # nothing came back, so nothing is taken for an answer
        server.spoil = never
        before = len(server.calls)
        play(first, parts_of(store, judge))
        assert len(server.calls) - before == 18 + 8  # each duel of the round, then of the evaluation, in both orders
    assert [r["n"] for r in ask(store, "SELECT count(*) AS n FROM judgements WHERE value IS NULL")] == [0]


def loop_of(folder: Path, url: str, **judge: Any) -> Loop:
    for name, text in (("train.jsonl", "Name a bird."), ("eval.jsonl", "Name a fish.")):
        (folder / name).write_text(json.dumps({"prompt": text}) + "\n")
    values = {
        "name": "canaries",
        "policy": {"model": str(folder / "tiny")},
        "prompts": {"train": "train.jsonl", "eval": "eval.jsonl"},
        "judge": {
            "kind": "llm",
            "model": "judge",
            "endpoint": {"base_url": url, "api_key_env": "NO_KEY_IS_NEEDED"},
            **judge,
        },
    }
    with chdir(folder):
        return build(prepare(parse_config(values, "test")))


def test_a_run_does_not_start_on_a_judge_that_always_names_the_first(tmp_path: Path) -> None:
    build_tiny_model(tmp_path / "tiny")
    with FlakyServer(always="A") as server:
        with pytest.raises(ConfigError, match=r"fails its canaries.*\n.*undecided.*\n.*judge.canaries: skip"):
            loop_of(tmp_path, server.url)
        asked = len(server.calls)
        with pytest.raises(ConfigError, match="fails its canaries"):
            loop_of(tmp_path, server.url)
        assert len(server.calls) == asked  # the store remembers what it said
        loop_of(tmp_path, server.url, canaries="skip").close()
        assert len(server.calls) == asked
