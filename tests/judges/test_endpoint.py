"""Questions to an endpoint that fails: each verdict right or absent, each call counted, none repeated (pitfall 37)."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from sparring.judges.calls import retry_after
from sparring.judges.endpoint import Endpoint
from sparring.judges.llm import LLMJudge, llm_judge
from sparring.judges.llm_client import Question, Reply
from sparring.judges.verdicts import verdict_schema
from sparring.loop.errors import ConfigError, EnvironmentProblem, StepError
from sparring.loop.types import JudgeCall, Judgement
from sparring.store.db import rows
from sparring.store.store import DuckStore
from tests.helpers.environment import environment
from tests.helpers.flaky_server import (
    IN_FLIGHT,
    P_RIGHT,
    P_WRONG,
    FlakyServer,
    endpoint,
    groups,
    judge_into,
    merit,
    seeded,
)
from tests.helpers.paths import ROOT

VERDICT = verdict_schema(("A", "B"))
KEY = "sk-test-0123456789abcdef"


@pytest.fixture
def key() -> Iterator[str]:
    """A key in the environment, with the line end that a key read from a file has."""
    os.environ["SPARRING_TEST_KEY"] = f"{KEY}\n"
    yield KEY
    del os.environ["SPARRING_TEST_KEY"]


def question(number: int) -> Question:
    text = f"question {number}: merit {number} or merit 500?"
    return Question(f"judgement_{number}", "judge", ({"role": "user", "content": text},), schema=VERDICT)


def ask(server: FlakyServer, count: int = 1, **options: Any) -> list[Reply]:
    client = Endpoint("model", **endpoint(server.url, **options))
    return [reply for chunk in client.ask([question(i) for i in range(count)]) for reply in chunk]


def always(kind: str) -> Any:
    return lambda text, before: kind


class Recorder:
    """Takes down what is asked, and answers nothing."""

    model = "judge"

    def __init__(self) -> None:
        self.asked: list[Question] = []

    def ask(self, questions: Sequence[Question]) -> Iterator[list[Reply]]:
        self.asked += questions
        yield []


def asked_by_text(count: int, **options: Any) -> dict[str, str]:
    """The id of the judgement that each question's text is for."""
    recorder = Recorder()
    list(LLMJudge(recorder, **options).judge(groups(count)))
    return {q.messages[0]["content"]: q.id for q in recorder.asked}


@pytest.mark.parametrize(
    "options",
    [{"verdict": "json"}, {"verdict": "logprobs"}, {"form": "pointwise", "scale": [0, 1009]}],
    ids=["json", "logprobs", "score"],
)
def test_an_endpoint_that_spoils_a_third_of_its_calls_invents_no_verdict(options: dict[str, Any]) -> None:
    count, attempts = 60, 3
    text_of = {c.id: c.text for g in groups(count) for c in g.completions}
    with FlakyServer(seeded(0.3)) as server:
        judge = llm_judge(model="judge", **options, endpoint=endpoint(server.url, attempts=attempts))
        records = [record for chunk in judge.judge(groups(count)) for record in chunk]
    judgements = [r for r in records if isinstance(r, Judgement)]
    calls = [r for r in records if isinstance(r, JudgeCall)]
    assert len({j.id for j in judgements}) == len(judgements) == 2 * count

    for j in judgements:
        if j.value is not None and j.rival_id is None:
            assert j.value == merit(text_of[j.completion_id])
        elif j.value is not None:
            better = merit(text_of[j.completion_id]) > merit(text_of[j.rival_id or ""])
            sure = 1.0 if options["verdict"] == "json" else P_RIGHT / (P_RIGHT + P_WRONG)
            assert j.value == pytest.approx(sure if better else 1 - sure)
        else:
            assert j.rationale, "an abstention says why"
    answered = sum(j.value is not None for j in judgements)
    assert answered >= 0.9 * len(judgements)

    # Every call that the server saw has its row, under its judgement, and a question has at most `attempts` of them.
    spoilt = Counter(call.spoilt for call in server.calls)
    assert len(spoilt) > 8 and 0.2 < 1 - spoilt[""] / len(server.calls) < 0.4
    ids = asked_by_text(count, **options)
    assert Counter(ids[call.text] for call in server.calls) == Counter(call.judgement_id for call in calls)
    assert max(Counter(call.judgement_id for call in calls).values()) <= attempts
    assert len({call.id for call in calls}) == len(calls)
    assert [c.judgement_id for c in calls if not c.error] == [j.id for j in judgements if j.value is not None]


@pytest.mark.slow
def test_killed_half_way_it_repeats_no_stored_verdict(tmp_path: Path) -> None:
    count = 24
    ids = asked_by_text(count, verdict="json")
    store = DuckStore(tmp_path / "store.duckdb")
    with FlakyServer(seeded(0.3, seed=1), delay=0.02) as server:
        command = [sys.executable, "-m", "tests.helpers.flaky_server", server.url, str(store.db.path), str(count)]
        process = subprocess.Popen(command, cwd=ROOT)
        while len(server.calls) < count and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it must die in the middle"
        with store.db.read() as con:
            stored = {row["judgement_id"] for row in rows(con, "SELECT judgement_id FROM judgements")}
        seen = len(server.calls)
        judge_into(store, server.url, count)
        before = {ids[call.text] for call in server.calls[:seen]}
        after = {ids[call.text] for call in server.calls[seen:]}
    assert len(stored) > IN_FLIGHT, "some verdicts must be stored before the kill"
    assert not after & stored
    assert len(after & before) <= IN_FLIGHT
    with store.db.read() as con:
        judgements = rows(con, "SELECT * FROM judgements")
        calls = Counter(row["judgement_id"] for row in rows(con, "SELECT judgement_id FROM judge_calls"))
    assert {row["judgement_id"] for row in judgements} == set(ids.values())
    paid = Counter(ids[call.text] for call in server.calls)
    assert all(calls[name] == paid[name] for name in set(ids.values()) - (after & before))


# One kind of failure each

REPLIES = ["cut", "both", "refusal", "refused", "not json"]
AGAIN = ["hang", "drip", "408", "409", "429", "500", "503", "reset", "cut body", *REPLIES]


@pytest.mark.parametrize("kind", AGAIN)
def test_what_may_pass_is_asked_again_up_to_the_limit(kind: str) -> None:
    with FlakyServer(always(kind)) as server:
        (reply,) = ask(server, attempts=3, timeout=0.2 if kind in ("hang", "drip") else 5)
    assert reply.text is None and reply.logprobs == {} and reply.error
    assert [call.attempt for call in reply.calls] == [1, 2, 3] and len(server.calls) == 3
    assert all(call.error for call in reply.calls)
    assert (reply.status == "unreached") != (kind in REPLIES)
    assert (reply.calls[0].reply is not None) == (kind in REPLIES)


def test_an_answer_ends_the_asking() -> None:
    with FlakyServer(lambda text, before: "500" if before < 2 else "") as server:
        (reply,) = ask(server, attempts=4)
    assert reply.text is not None and [bool(call.error) for call in reply.calls] == [True, True, False]
    assert len(server.calls) == 3


@pytest.mark.parametrize("status", ["400", "413", "422"])
def test_a_question_that_is_refused_is_not_asked_again_and_others_are_answered(status: str) -> None:
    with FlakyServer(lambda text, before: status if "question 1:" in text else "") as server:
        replies = {reply.question.id: reply for reply in ask(server, 3)}
    assert len(server.calls) == 3
    assert replies["judgement_1"].text is None and replies["judgement_1"].error.startswith(f"HTTP {status}")
    assert replies["judgement_1"].status != "unreached"
    assert replies["judgement_0"].text and replies["judgement_2"].text


@pytest.mark.parametrize("status", ["401", "403", "404"])
def test_a_mistake_in_the_config_stops_at_once_and_keeps_what_was_answered(status: str) -> None:
    with FlakyServer(lambda text, before: status if "question 2:" in text else "") as server:
        answered: list[Reply] = []
        with pytest.raises(StepError, match=f"{status}.*earlier answers are kept"):
            for chunk in Endpoint("model", **endpoint(server.url, concurrency=1)).ask([question(i) for i in range(9)]):
                answered += chunk
    assert [reply.question.id for reply in answered] == ["judgement_0", "judgement_1"]
    assert len(server.calls) == 3


def test_an_endpoint_that_is_not_there_leaves_every_question_open() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        client = Endpoint("model", **endpoint(url, attempts=2))
        replies = [reply for chunk in client.ask([question(i) for i in range(3)]) for reply in chunk]
    assert [reply.status for reply in replies] == ["unreached"] * 3
    assert [len(reply.calls) for reply in replies] == [2] * 3


# Time: limits, waits, rates


def test_a_server_is_given_the_time_it_asks_for() -> None:
    with FlakyServer(lambda text, before: "429" if before == 0 else "", retry_after="0.4") as server:
        (reply,) = ask(server)
    assert reply.text and server.calls[1].at - server.calls[0].at >= 0.4


def test_waits_are_doubled() -> None:
    with FlakyServer(always("500")) as server:
        ask(server, attempts=4, backoff=0.1)
    waits = [b.at - a.at for a, b in zip(server.calls, server.calls[1:], strict=False)]
    assert [wait >= least for wait, least in zip(waits, (0.05, 0.1, 0.2), strict=True)] == [True] * 3


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after({"retry-after": "1.5"}) == 1.5
    assert 20 < retry_after({"retry-after": formatdate(time.time() + 30, usegmt=True)}) <= 30
    for nothing in ({}, {"retry-after": "soon"}, {"retry-after": "-3"}, {"retry-after": "nan"}):
        assert retry_after(nothing) == 0.0


def test_no_more_requests_at_a_time_than_allowed_and_no_fewer() -> None:
    with FlakyServer(delay=0.1) as server:
        ask(server, 12, concurrency=3)
    assert server.most == 3


def test_nothing_is_asked_ahead_of_what_is_stored() -> None:
    with FlakyServer() as server:
        client = Endpoint("model", **endpoint(server.url, concurrency=3))
        replies = client.ask([question(i) for i in range(12)])
        held = len(next(replies))
        time.sleep(0.5)  # a slow store: the chunk is not in it yet
        assert held <= len(server.calls) <= 3
        assert held + sum(map(len, replies)) == 12


def test_requests_a_minute_are_limited() -> None:
    with FlakyServer() as server:
        ask(server, 5, requests_per_minute=600)
    times = [call.at for call in server.calls]
    assert times[-1] - times[0] >= 0.35  # four gaps of 0.1 s, the first call may be slow to arrive


def endpoint_threads(before: set[threading.Thread]) -> list[str]:
    """What still runs of an endpoint's; other tests of this process may have left threads of such names."""
    names = ("dispatch", "AnyIO", "asyncio")
    return [t.name for t in set(threading.enumerate()) - before if t.name.startswith(names)]


def test_closing_ends_what_is_under_way() -> None:
    before = set(threading.enumerate())
    with FlakyServer(lambda text, before: "" if "question 0:" in text else "hang") as server:
        replies = Endpoint("model", **endpoint(server.url, timeout=60)).ask([question(i) for i in range(9)])
        assert [reply.question.id for reply in next(replies)] == ["judgement_0"]
        while server.busy < 7:
            time.sleep(0.01)
        began = time.monotonic()
        replies.close()  # type: ignore[attr-defined]
        assert time.monotonic() - began < 5 and endpoint_threads(before) == []
        while server.busy and time.monotonic() - began < 10:
            time.sleep(0.01)
        assert server.busy == 0 and len(server.calls) <= 9


def test_a_caller_that_fails_ends_it_too() -> None:
    before = set(threading.enumerate())

    def store() -> None:
        for _ in Endpoint("model", **endpoint(server.url)).ask([question(i) for i in range(9)]):
            raise KeyboardInterrupt

    with FlakyServer(lambda text, before: "" if "question 0:" in text else "hang") as server:
        with pytest.raises(KeyboardInterrupt):
            store()
        assert endpoint_threads(before) == []


# What is written down


def test_tokens_and_cost_are_what_the_server_counts() -> None:
    with FlakyServer() as server:
        (reply,) = ask(server, price_in=2.0, price_out=8.0)
        (free,) = ask(server)
    (call,) = reply.calls
    assert (call.prompt_tokens, call.completion_tokens) == (100, 10)
    assert call.cost == pytest.approx(100 * 2e-6 + 10 * 8e-6)
    assert (call.judgement_id, call.judge, call.model, call.error) == ("judgement_0", "judge", "model", "")
    assert call.reply == reply.text and 0 < call.seconds < 5
    assert free.calls[0].cost is None and free.calls[0].id != call.id


def test_the_key_is_sent_and_shows_nowhere(key: str) -> None:
    kinds = {"question 0:": "", "question 1:": "500", "question 2:": "422"}
    with FlakyServer(lambda text, before: next(v for k, v in kinds.items() if k in text)) as server:
        replies = ask(server, 3, api_key_env="SPARRING_TEST_KEY", attempts=2)
    told = {reply.question.id: reply for reply in replies}
    assert "Bearer ***" in str(told["judgement_0"].text), "the server must have got it, and said it back"
    assert "Bearer ***" in told["judgement_1"].error and "Bearer ***" in told["judgement_2"].error
    assert KEY not in repr(replies)
    with FlakyServer(always("401")) as server, pytest.raises(StepError) as raised:
        ask(server, api_key_env="SPARRING_TEST_KEY")
    assert "Bearer ***" in str(raised.value)
    assert KEY not in "".join(traceback.format_exception(raised.value))


def test_without_a_key_only_this_machine_is_asked() -> None:
    with pytest.raises(EnvironmentProblem, match="SPARRING_NO_SUCH_KEY"):
        Endpoint("model", api_key_env="SPARRING_NO_SUCH_KEY")
    with pytest.raises(EnvironmentProblem, match=r"judge\.example"):
        Endpoint("model", base_url="https://judge.example/v1", api_key_env="SPARRING_NO_SUCH_KEY")
    for url in ("http://localhost:1/v1", "http://127.0.0.1:1/v1", "http://[::1]:1/v1"):
        Endpoint("model", base_url=url, api_key_env="SPARRING_NO_SUCH_KEY")


@pytest.mark.parametrize(
    "options",
    [{"concurrency": 0}, {"attempts": 1.5}, {"timeout": -1}, {"timeout": "60"}, {"attempts": True}, {"backoff": 0.0}],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Endpoint("model", base_url="http://localhost:1", **options)


@pytest.fixture
def dead_proxy() -> Iterator[None]:
    """A proxy in the environment, at a port where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
        with environment(HTTP_PROXY=nobody, http_proxy=nobody, NO_PROXY="", no_proxy=""):
            yield


def test_this_machine_is_reached_without_the_proxy(dead_proxy: None) -> None:
    with FlakyServer() as server:
        (reply,) = ask(server, attempts=1)
    assert reply.text is not None


def test_no_question_no_call() -> None:
    with FlakyServer() as server:
        assert ask(server, 0) == [] and server.calls == []
