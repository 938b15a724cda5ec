"""A judge that is a service over HTTP: every score is the service's own or absent, and every request is counted."""

import json
import socket
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sparring.flows.compose.judge_factory import judge_info, make_judge
from sparring.flows.config import JudgeConfig, parse_config
from sparring.judges.http import HTTPJudge
from sparring.judges.score_reply import read_scores
from sparring.judges.verdicts import Verdict
from sparring.loop.errors import ConfigError, EnvironmentProblem, StepError
from sparring.loop.evaluator import RivalEvaluator
from sparring.loop.fakes import FakeLearner, FakeSampler
from sparring.loop.pairing.pipeline import pairing
from sparring.loop.parts import Parts
from sparring.loop.round import play, round_zero
from sparring.loop.types import Group, JudgeCall, Judgement, Prompt, RunInfo
from sparring.store.db import rows
from sparring.store.store import DuckStore
from tests.helpers.environment import environment
from tests.helpers.experience import completion
from tests.helpers.records import HELD_OUT, INFO, TRAIN, checkpoint
from tests.helpers.score_server import HANG, Reply, Request, ScoreServer, scores
from tests.helpers.spar import spar

KEY = "sk-test/0123456789+abcdef"
QUICK = {"name": "length", "timeout": 5.0, "backoff": 0.01, "attempts": 3}


def groups(*sizes: int) -> list[Group]:
    """A prompt per size with as many answers; answers of one letter, two letters, ... over all prompts."""
    made, length = [], 0
    for number, size in enumerate(sizes):
        prompt = Prompt.make([{"role": "user", "content": f"question {number}"}], "train", "", {"tests": [number]})
        answers = [completion(prompt.id, k, "x" * (length + k + 1)) for k in range(size)]
        length += size
        made.append(Group(prompt, tuple(answers)))
    return made


def ask(server: ScoreServer, what: Sequence[Group], **options: Any) -> tuple[dict[str, Judgement], list[JudgeCall]]:
    """Judgements by the completion that they are about, and calls."""
    judge = HTTPJudge(url=server.url, **(QUICK | options))
    records = [record for chunk in judge.judge(what) for record in chunk]
    judgements = {r.completion_id: r for r in records if isinstance(r, Judgement)}
    calls = [r for r in records if isinstance(r, JudgeCall)]
    assert len(judgements) + len(calls) == len(records)
    return judgements, calls


def first(*replies: Reply) -> Callable[[Request, int], Reply]:
    """These replies first, then scores."""
    return lambda request, before: replies[before] if before < len(replies) else scores(request, before)


def always(reply: Reply) -> Callable[[Request, int], Reply]:
    return lambda request, before: reply


def everything(store: DuckStore) -> str:
    """All rows of all tables, as text."""
    with store.db.read() as con:
        tables = [row["table_name"] for row in rows(con, "SELECT table_name FROM duckdb_tables()")]
        return "\n".join(repr(rows(con, f'FROM "{table}"')) for table in tables)


def tell(store: DuckStore, sql: str) -> list[dict[str, Any]]:
    with store.db.read() as con:
        return rows(con, sql)


# Requests and scores


def test_a_row_has_the_conversation_the_answer_and_the_prompts_other_fields() -> None:
    (group,) = groups(1)
    with ScoreServer() as server:
        judgements, _ = ask(server, [group])
    (request,) = server.requests
    (answer,) = group.completions
    assert request.rows == [
        {
            "id": answer.id,
            "prompt": [{"role": "user", "content": "question 0"}],
            "completion": "x",
            "meta": {"tests": [0]},
        }
    ]
    assert request.headers["Content-Type"] == "application/json" and request.path == "/score"
    assert judgements[answer.id].value == 1.0 and judgements[answer.id].rival_id is None


def test_every_score_goes_to_its_answer_whatever_the_batch_and_the_order_of_replies() -> None:
    what = groups(4, 3, 5)

    def later_first(request: Request, before: int) -> Reply:
        time.sleep(0.1 if before == 0 else 0.0)
        return scores(request, before)

    for batch_size, sizes in ((5, [5, 5, 2]), (1, [1] * 12), (50, [12])):
        with ScoreServer(later_first) as server:
            judgements, calls = ask(server, what, batch_size=batch_size, concurrency=3)
        assert sorted((len(r.rows) for r in server.requests), reverse=True) == sizes
        answers = [c for g in what for c in g.completions]
        assert [judgements[c.id].value for c in answers] == list(range(1, 13))
        # A call is counted under the judgement of the first answer in it.
        starts = {judgements[request.ids[0]].id for request in server.requests}
        assert {call.judgement_id for call in calls} == starts and len(calls) == len(sizes)


def test_null_is_no_answer_and_rationales_are_kept() -> None:
    reply = Reply({"scores": [1, None, None, -2.5], "rationales": ["good", "no tests", None, "half \ud83d"], "took": 3})
    (group,) = groups(4)
    with ScoreServer(always(reply)) as server:
        judgements, (call,) = ask(server, [group])
    told = [judgements[c.id] for c in group.completions]
    assert [j.value for j in told] == [1.0, None, None, -2.5]
    assert told[0].rationale == "good" and "no tests" in told[1].rationale and told[2].rationale
    assert told[3].rationale == "half \\ud83d"  # half a character: no store can hold it
    assert len(server.requests) == 1 and call.error == "" and call.reply == "[1.0, null, null, -2.5]"
    assert not any(j.status == "unreached" for j in told)


def test_a_service_cannot_pass_its_abstention_for_a_lost_connection() -> None:
    with ScoreServer(always(Reply({"scores": [None], "rationales": ["no reply: timed out"]}))) as server:
        judgements, _ = ask(server, groups(1))
    assert [j.status == "unreached" for j in judgements.values()] == [False]


@pytest.mark.parametrize("score", ["NaN", "Infinity", "-Infinity", "1e999", '"0.5"', "true", "[1]", "{}", "9" * 400])
def test_what_is_no_finite_number_is_no_answer_to_its_own_row(score: str) -> None:
    verdicts = read_scores(f'{{"scores": [0.5, {score}]}}'.encode(), 2)
    assert isinstance(verdicts, list) and verdicts[0] == Verdict(0.5)
    assert verdicts[1].value is None and "finite number" in verdicts[1].note


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"0.5",
        b"[0.5, 0.5]",
        b'{"scores": [0.5, 0.5',
        b"\xff\xfe",
        b'{"scores": 0.5}',
        b'{"score": [0.5, 0.5]}',
        b'{"scores": [0.5]}',
        b'{"scores": [0.5, 0.5, 0.5]}',
        b'{"scores": [0.5, 0.5], "rationales": ["one"]}',
        b'{"scores": [0.5, 0.5], "rationales": "both"}',
        b'{"scores": [0.5, 0.5], "rationales": [1, 2]}',
        b"[" * 100_000,
    ],
)
def test_a_malformed_reply_is_asked_again_and_is_never_a_number(body: bytes) -> None:
    assert isinstance(read_scores(body, 2), str)
    with ScoreServer(always(Reply(body))) as server:
        judgements, calls = ask(server, groups(2))
    assert [j.value for j in judgements.values()] == [None, None]
    assert all(j.rationale and j.status != "unreached" for j in judgements.values())
    assert [call.attempt for call in calls] == [1, 2, 3] and all(call.error for call in calls)
    assert all(call.reply is not None for call in calls)
    with ScoreServer(first(Reply(body))) as server:
        judgements, calls = ask(server, groups(2))
    assert [j.value for j in judgements.values()] == [1.0, 2.0] and len(calls) == 2


def test_an_answer_that_is_judged_is_not_sent_again() -> None:
    (group,) = groups(3)
    with ScoreServer() as server:
        judgements, _ = ask(server, [group])
        known = replace(group, judged=tuple(judgements[c.id] for c in group.completions[:2]))
        again, _ = ask(server, [known])
        assert list(again) == [group.completions[2].id] == server.requests[1].ids
        assert ask(server, []) == ({}, [])


# What fails


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_what_may_pass_is_asked_again_up_to_the_limit(status: int) -> None:
    with ScoreServer(first(Reply({}, status))) as server:
        judgements, calls = ask(server, groups(2))
    assert [j.value for j in judgements.values()] == [1.0, 2.0]
    assert [(call.attempt, bool(call.error)) for call in calls] == [(1, True), (2, False)]
    with ScoreServer(always(Reply({}, status))) as server:
        judgements, calls = ask(server, groups(2))
    assert len(server.requests) == len(calls) == 3 and str(status) in calls[0].error
    assert all(j.value is None and j.status == "unreached" for j in judgements.values())


@pytest.mark.parametrize("status", [429, 503])
def test_the_service_is_given_the_time_that_it_asks_for(status: int) -> None:
    with ScoreServer(first(Reply({}, status, {"Retry-After": "0.4"}))) as server:
        ask(server, groups(1))
    assert server.requests[1].at - server.requests[0].at >= 0.4


def test_a_service_that_says_nothing_is_left_after_the_timeout() -> None:
    with ScoreServer(first(Reply(HANG), Reply(HANG))) as server:
        judgements, calls = ask(server, groups(1), timeout=0.2)
    assert [j.value for j in judgements.values()] == [1.0]
    assert all(0.2 <= call.seconds < 2 and "0.2 s" in call.error and call.reply is None for call in calls[:2])


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_is_refused_is_not_repeated_and_others_are_answered(status: int) -> None:
    def no_b(request: Request, before: int) -> Reply:
        refused = any(row["completion"] == "xx" for row in request.rows)
        return Reply({"detail": "no such row"}, status) if refused else scores(request, before)

    with ScoreServer(no_b) as server:
        judgements, _ = ask(server, groups(3), batch_size=1)
    assert len(server.requests) == 3
    assert [j.value for j in sorted(judgements.values(), key=lambda j: j.completion_id)] == [1.0, None, 3.0]
    (refused,) = (j for j in judgements.values() if j.value is None)
    assert f"HTTP {status}" in refused.rationale and "no such row" in refused.rationale


def test_what_the_service_says_of_several_prompts_is_not_kept_under_one_of_them() -> None:
    """A message may repeat a row, and a row is forgotten with its own prompt."""
    for reply in (Reply({"detail": "see question 1"}, 422), Reply(b"see question 1")):
        with ScoreServer(always(reply)) as server:
            mixed, mixed_calls = ask(server, groups(1, 1))
            alone, alone_calls = ask(server, groups(1, 1), batch_size=1)
        assert "question 1" not in repr((mixed, mixed_calls))
        assert "question 1" in repr((alone, alone_calls))


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_mistake_in_the_config_stops_at_once(status: int) -> None:
    refuses = always(Reply({"detail": "who are you"}, status))
    with (
        ScoreServer(refuses) as server,
        pytest.raises(StepError, match=rf"{status}.*who are you.*judge\.headers"),
    ):
        ask(server, groups(9), batch_size=1, concurrency=1)
    assert len(server.requests) == 1


def test_a_redirect_is_not_followed() -> None:
    with ScoreServer() as other, ScoreServer(always(Reply({}, 307, {"Location": other.url}))) as server:
        with pytest.raises(StepError, match=f"307.*{other.url}"):
            ask(server, groups(1))
        assert other.requests == []


def test_no_more_requests_at_a_time_than_allowed_and_no_fewer() -> None:
    with ScoreServer(delay=0.1) as server:
        ask(server, groups(12), batch_size=2, concurrency=3)
    assert server.most == 3


# Accounting, secrets, proxies


def test_each_attempt_has_its_row() -> None:
    with ScoreServer(first(Reply({}, 500), Reply(b"?")), delay=0.05) as server:
        judgements, calls = ask(server, groups(2), version="3")
    name = "http-length@3"
    assert {j.judge for j in judgements.values()} == {call.judge for call in calls} == {name}
    assert {call.model for call in calls} == {"length@3"}
    assert [(c.attempt, c.reply, bool(c.error)) for c in calls] == [
        (1, None, True),
        (2, "?", True),
        (3, "[1.0, 2.0]", False),
    ]
    assert all(0.05 <= call.seconds < 5 for call in calls)
    assert all((c.cost, c.prompt_tokens, c.completion_tokens) == (None, None, None) for c in calls)
    assert len({call.id for call in calls}) == 3


def test_a_secret_is_sent_and_kept_nowhere(tmp_path: Path) -> None:
    """The service repeats the secret in every way that it can."""
    headers = {"Authorization": "Bearer $SPARRING_TEST_KEY", "X-Team": "rewards"}

    def repeat(request: Request, before: int) -> Reply:
        said = request.headers["Authorization"]
        assert said == f"Bearer {KEY}" and request.headers["X-Team"] == "rewards"
        text = request.rows[0]["completion"]
        escaped = said.replace("/", "\\/").encode()
        replies = {"x": Reply({"scores": [1], "rationales": [said]}), "xx": Reply({"no": said}, 500)}
        replies |= {"xxx": Reply({"no": said}, 422), "xxxx": Reply(b'{"scores": "' + escaped + b'"}')}
        return replies[text]

    store = DuckStore(tmp_path / "s.duckdb")
    with environment(SPARRING_TEST_KEY=f"{KEY}\n"), ScoreServer(repeat) as server:
        config = {"kind": "http", "url": server.url, "headers": headers, "batch_size": 1, **QUICK}
        section = JudgeConfig.model_validate(config)
        judge = make_judge(section)
        info = RunInfo("run", "run", 0, {"judge": section.model_dump(mode="json")}, "x", {})
        store.add([[info, judge_info(section, judge)], *judge.judge(groups(4))])
        kept = everything(store)
        assert kept.count("Bearer ***") >= 4 and "$SPARRING_TEST_KEY" in kept
        assert KEY not in kept and KEY.replace("/", "\\/") not in kept and KEY not in repr(vars(judge))
        server.answer = always(Reply({"no": KEY}, 401))
        with pytest.raises(StepError) as raised:
            list(judge.judge(groups(1)))
    assert "***" in str(raised.value) and KEY not in "".join(traceback.format_exception(raised.value))


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(EnvironmentProblem, match="SPARRING_NO_SUCH_KEY"):
        HTTPJudge(url="http://localhost:1", name="length", headers={"X-Key": "$SPARRING_NO_SUCH_KEY"})


def test_this_machine_is_reached_without_the_proxy_and_others_through_it() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
        with environment(HTTP_PROXY=nobody, http_proxy=nobody, NO_PROXY="", no_proxy=""), ScoreServer() as server:
            judgements, _ = ask(server, groups(1))
    assert [j.value for j in judgements.values()] == [1.0]
    with ScoreServer() as proxy:
        address = proxy.url.removesuffix("/score")
        with environment(HTTP_PROXY=address, http_proxy=address, NO_PROXY="", no_proxy=""):
            list(HTTPJudge(url="http://judge.invalid/score", **QUICK).judge(groups(1)))
    assert [request.path for request in proxy.requests] == ["http://judge.invalid/score"]


# Options and names


def test_the_name_is_that_of_the_service_and_its_version() -> None:
    judge = HTTPJudge(url="http://localhost:1/score", name="unit-tests", version="3")
    moved = HTTPJudge(url="https://far.example/score", name="unit-tests", version="3", timeout=9, batch_size=1)
    assert judge.name == moved.name == "http-unit-tests@3"
    assert HTTPJudge(url="http://localhost:1/score", name="unit-tests").name != judge.name
    assert not judge.compares and judge.weights == ()


@pytest.mark.parametrize(
    "options",
    [
        {"url": "localhost:8000"},
        {"url": "ftp://localhost/score"},
        {"url": "http://[::1/score"},
        {"url": "http://localhost:99999/score"},
        {"url": None},
        {"name": "a b"},
        {"name": "a@b"},
        {"version": 3},
        {"version": ""},
        {"batch_size": 0},
        {"batch_size": 1.5},
        {"concurrency": True},
        {"timeout": -1},
        {"attempts": "3"},
        {"headers": {"X Y": "z"}},
        {"headers": {"X-Team": 3}},
        {"headers": {"X-Team": "line\nend"}},
        {"headers": {"X-Team": "half $"}},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    named = next(iter(options)).removesuffix("s")
    with pytest.raises(ConfigError, match=named):
        HTTPJudge(**({"url": "http://localhost:1/score", "name": "length"} | options))


@pytest.mark.parametrize(
    "options",
    [
        {"url": f"http://me:{KEY}@localhost/score"},
        {"headers": {"Authorization": f"Bearer {KEY}"}},
        {"headers": {"x-api-key": KEY}},
    ],
)
def test_a_secret_that_stands_in_the_config_is_refused_and_not_repeated(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="environment variable") as raised:
        HTTPJudge(**({"url": "http://localhost:1/score", "name": "length"} | options))
    assert KEY not in str(raised.value)


def test_how_the_service_is_reached_shapes_no_run() -> None:
    def shape(judge: Mapping[str, Any]) -> Any:
        values = {"name": "x", "policy": {"model": "m"}, "prompts": {"train": "t", "eval": "e"}, "judge": judge}
        return parse_config(values, "test").shape({})["judge"]

    near = {"kind": "http", "name": "unit-tests", "version": "3", "url": "http://localhost:1/score"}
    far = {"url": "https://far.example/", "headers": {"X-Key": "$KEY"}, "batch_size": 2, "concurrency": 1, "timeout": 9}
    far |= {"attempts": 1, "backoff": 2, "requests_per_minute": 5, "max_abstain": 0.1, "canaries": "skip"}
    assert shape(near) == shape(near | far) == {"kind": "http", "name": "unit-tests", "version": "3"}
    assert shape(near) != shape(near | {"version": "4"})
    panel = {"kind": "panel", "judges": [near, {"kind": "rules"}]}
    moved = panel | {"judges": [near | far, {"kind": "rules"}]}
    assert shape(panel) == shape(moved)


def test_a_dry_run_does_not_ask_the_service(tmp_path: Path) -> None:
    with ScoreServer() as server:
        (tmp_path / "loop.yaml").write_text(
            "name: tiny\npolicy: {model: ./none}\nprompts: {train: train.jsonl, eval: eval.jsonl}\n"
            f"judge: {{kind: http, url: '{server.url}', name: length, headers: {{X-Key: $SPARRING_NO_SUCH_KEY}}}}\n"
        )
        for name in ("train", "eval"):
            (tmp_path / f"{name}.jsonl").write_text(json.dumps({"prompt": f"Name a bird, {name}."}) + "\n")
        done = spar("run", "loop.yaml", "--dry-run", cwd=tmp_path)
        assert done.code == 0, done.err
        assert "run tiny-" in done.err and "url: http" in done.out and server.requests == []


# In a loop


def parts_of(store: DuckStore, judge: HTTPJudge) -> Parts:
    return Parts(
        store, FakeSampler({"train": 4, "eval": 2}), judge, pairing("best_worst", judge.read), FakeLearner(),
        RivalEvaluator(read=judge.read), tuple(p.id for p in TRAIN), tuple(p.id for p in HELD_OUT), per_round=3,
    )  # fmt: skip


def test_two_rounds_are_played_and_a_service_that_goes_down_is_asked_again(tmp_path: Path) -> None:
    store, initial = DuckStore(tmp_path / "s.duckdb"), checkpoint("initial")
    store.add([[INFO, initial, *TRAIN, *HELD_OUT]])
    with ScoreServer() as server:
        judge = HTTPJudge(url=server.url, **(QUICK | {"attempts": 1, "batch_size": 5, "concurrency": 1}))
        start = play(round_zero(INFO.id, initial), parts_of(store, judge))
        seen = len(server.requests)
        known = len(tell(store, "SELECT * FROM judgements"))
        server.answer = lambda request, before: Reply({}, 503) if before > seen else scores(request, before)
        with pytest.raises(StepError, match=r"gave no answer to 7 of 12 questions.*HTTP 503.*spar resume"):
            play(start, parts_of(store, judge))
        assert len(tell(store, "SELECT * FROM judgements")) == known + 5  # what was answered is stored, and no more
        asked = len(server.requests)
        server.answer = scores
        second = play(start, parts_of(store, judge))
        # The seven that are open, then the held-out answers: two prompts, two each.
        assert [len(request.rows) for request in server.requests[asked:]] == [5, 2, 4]
        play(second, parts_of(store, judge))
    stored = tell(store, "SELECT c.text, j.value FROM judgements j JOIN completions c USING (completion_id)")
    assert stored and all(row["value"] == len(row["text"]) for row in stored)
    assert len(tell(store, "SELECT * FROM judge_calls")) == len(server.requests)
    pairs = tell(store, "SELECT chosen, rejected FROM pair_texts")
    assert pairs and all(len(row["chosen"]) > len(row["rejected"]) for row in pairs)
    assert {row["round"] for row in tell(store, "SELECT DISTINCT round FROM pairs")} == {1, 2}
