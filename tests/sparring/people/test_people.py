"""What people are asked, what becomes of it in the store, and who may speak to the page's server."""

from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock
from starlette.testclient import TestClient

from sparring.cli.common import find_run
from sparring.judges.bench import Agreement
from sparring.judges.human import Choice, Question, people_judge
from sparring.loop.errors import EnvironmentProblem, StoreError
from sparring.loop.judgements import duel_id
from sparring.loop.types import Judgement, Record
from sparring.people.queue import agreements, groups_to_judge, questions_of
from sparring.people.server import listen, people_app
from sparring.store.db import rows
from sparring.store.store import DuckStore
from tests.helpers.people import ANN, answered_store, number, session_of
from tests.helpers.records import (
    HELD_OUT,
    INFO,
    JUDGE,
    RUN,
    TRAIN,
    checkpoint,
    completion,
    evaluations,
    filled_store,
    judgement,
    pair,
    round_of,
)  # fmt: skip

TOKEN = "the-token-of-this-test"


def ask(store: DuckStore, sql: str) -> list[dict[str, Any]]:
    with store.db.read() as con:
        return rows(con, sql)


def asked(store: DuckStore, split: Any = "train", round: int | None = None, **drawn: Any) -> list[Question]:
    groups = groups_to_judge(store, RUN, ANN.id, split, round)
    return questions_of(store, RUN, groups, drawn.get("seed", 0), drawn.get("limit"))


def texts(found: list[Question]) -> set[tuple[str, str]]:
    return {(q.completion.text, q.rival.text) for q in found}


def test_train_answers_of_the_last_round_or_of_another(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "s.duckdb").store
    assert texts(asked(store)) == {("a wren", "a bird is a")}  # the other prompts: one text twice, and not sampled
    assert texts(asked(store, round=1)) == {("a robin", "no"), ("yes", "yes indeed"), ("one two", "one two three")}
    assert len(asked(store, round=1, limit=2)) == 2
    assert texts(asked(store, round=1, limit=2)) <= texts(asked(store, round=1))


def test_the_pair_that_a_policy_learns_from_is_asked(tmp_path: Path) -> None:
    store, policy = DuckStore(tmp_path / "s.duckdb"), checkpoint("policy")
    rnd = round_of(1, policy, policy, TRAIN)
    made = [completion(rnd, TRAIN[0], k, text=f"text {k}") for k in range(6)]
    store.add([[INFO, policy, *TRAIN, rnd, *made, pair(rnd, made[4], made[2])]])
    for seed in range(5):
        assert texts(asked(store, seed=seed)) == {("text 2", "text 4")}  # in the order of samples, not chosen first


def measured(store: DuckStore) -> tuple[list[str], list[str]]:
    """The ids of two answers a held-out prompt, of round 2's candidate and of the initial policy."""
    initial = checkpoint("initial")
    candidate = checkpoint("candidate", initial)
    at = round_of(2, candidate, initial, HELD_OUT)
    before = round_of(0, initial, initial, HELD_OUT)
    mine = [completion(at, p, k, text=f"new {k} {p.id}") for p in HELD_OUT for k in (0, 1)]
    theirs = [completion(before, p, k, text=f"old {k} {p.id}") for p in HELD_OUT for k in (0, 1)]
    measures = evaluations(at, candidate, {"win_rate": 0.5, "accepted": 1.0})
    store.add([[INFO, initial, candidate, *HELD_OUT, *mine, *theirs, *measures]])
    store.add([evaluations(before, initial, {"win_rate": 0.5})])
    return [c.id for c in mine], [c.id for c in theirs]


def test_held_out_answers_of_the_candidate_beside_the_rivals(tmp_path: Path) -> None:
    store = DuckStore(tmp_path / "s.duckdb")
    mine, theirs = measured(store)
    found = asked(store, "eval")
    assert len(found) == 4
    assert {(q.completion.id, q.rival.id) for q in found} == set(zip(mine, theirs, strict=True))


def test_what_cannot_be_judged_is_refused(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "s.duckdb").store
    with pytest.raises(StoreError, match="no round 7 with answers to train prompts; see: spar status"):
        asked(store, round=7)
    with pytest.raises(StoreError, match="no round 0 in which a candidate was measured"):
        asked(store, "eval", round=0)
    with pytest.raises(StoreError, match="has no run nobody"):
        find_run(store, "nobody")


def choose(client: TestClient, state: dict[str, Any], choice: Choice) -> dict[str, Any]:
    told = client.post("/answer", json={"question": state["question"]["name"], "choice": choice})
    assert told.status_code == 200, told.text
    found: dict[str, Any] = told.json()
    return found


def opened(store: DuckStore, host: str = "127.0.0.1", **drawn: Any) -> TestClient:
    """A client as the page is one: with the cookie, and the page's token."""
    client = TestClient(people_app(session_of(store, **drawn), TOKEN), base_url=f"http://{host}:8123")
    page = client.get("/", params={"token": TOKEN})
    assert page.status_code == 200
    client.headers["x-page-token"] = page.text.partition('name="page-token" content="')[2].partition('"')[0]
    return client


def better(state: dict[str, Any]) -> Choice:
    return "left" if number(state["question"]["left"]) > number(state["question"]["right"]) else "right"


def test_people_count_as_any_judge_does(tmp_path: Path) -> None:
    store = answered_store(tmp_path / "s.duckdb", 8, misjudged=2)
    client = opened(store)
    state = client.get("/state").json()
    for _ in range(6):
        state = choose(client, state, better(state))
    state = choose(client, choose(client, state, "tie"), "skip")
    assert (state["done"], state["skipped"], state["question"]) == (7, 1, None)
    (told,) = ask(
        store, "SELECT count(*) AS duels, count(p_wins) AS n FROM duels WHERE answered AND judge = 'people:ann'"
    )
    assert told == {"duels": 7, "n": 7}
    (skipped,) = ask(store, "SELECT p_wins, answered FROM duels WHERE NOT answered")
    assert skipped == {"p_wins": None, "answered": False}
    (judge,) = ask(store, "SELECT judge, kind FROM judges")
    assert judge == {"judge": "people:ann", "kind": "people"}
    assert ask(store, "SELECT * FROM position_bias") == []
    (view,) = ask(store, "SELECT * FROM judge_agreement")
    assert (view["judge"], view["other_judge"], view["duels"]) == ("people:ann", JUDGE, 7)
    mine = agreements(store, ANN.id, asked(store))
    assert set(mine) == {JUDGE}
    assert (mine[JUDGE].pairs, mine[JUDGE].agreement, mine[JUDGE].opposed) == (7, view["agreement"], view["opposed"])
    wrong = ask(
        store,
        """SELECT count(*) AS n FROM duels d JOIN scores s USING (completion_id)
        JOIN scores r ON r.completion_id = d.rival_id WHERE d.judge = 'people:ann' AND d.p_wins <> 0.5
        AND (s.score > r.score) <> (d.p_wins = 1)""",
    )
    assert view["opposed"] == pytest.approx(wrong[0]["n"] / 7)
    assert view["agreement"] == pytest.approx((6 - wrong[0]["n"]) / 7)


def test_agreement_by_hand_also_across_policies_and_the_other_way_round(tmp_path: Path) -> None:
    store = DuckStore(tmp_path / "s.duckdb")
    measured(store)
    found = asked(store, "eval")  # four duels: people say 1, 1, 0 and 0.5
    said: list[Record] = []
    for q, p in zip(found, (1.0, 1.0, 0.0, 0.5), strict=True):
        choice: Choice = "tie" if p == 0.5 else "left" if (p == 1) == (q.order(ANN.id) == 0) else "right"
        said.append(q.judgement(ANN.id, choice))
        said += [judgement(q.completion, 1.0), judgement(q.rival, 0.0)]  # rules: the candidate always
        for order in (0, 1):  # a judge that was asked about (rival, completion) says the rival always
            said.append(
                Judgement(
                    duel_id("r", q.rival, q.completion, order), "r", q.rival.id, q.completion.id, "", "", order, 1.0
                )
            )
    other = people_judge("bob")
    store.add([[ANN, other, *said, found[0].judgement(other.id, "skip"), found[1].judgement(other.id, "tie")]])
    told = agreements(store, ANN.id, found)
    assert set(told) == {JUDGE, "r", "people:bob"}
    assert (told[JUDGE].agreement, told[JUDGE].opposed, told[JUDGE].pairs) == (0.5, 0.25, 4)
    assert (told["r"].agreement, told["r"].opposed, told["r"].pairs) == (0.25, 0.5, 4)
    assert told["people:bob"] == Agreement(1, 0.0, 0.0, 0.0)


def test_a_skip_is_filled_in_a_later_session_and_nothing_is_changed(tmp_path: Path) -> None:
    store = answered_store(tmp_path / "s.duckdb", 2)
    client = opened(store)
    first = client.get("/state").json()
    second = choose(client, first, "skip")
    assert second["question"]["left"] != first["question"]["left"]
    assert client.get("/state").json()["question"] == second["question"]  # not asked again here
    choose(client, second, better(second))
    again = opened(store, seed=5)  # another order of questions, the same sides
    state = again.get("/state").json()
    shown = ("prompt", "left", "right")
    assert [state["question"][k] for k in shown] == [first["question"][k] for k in shown]
    assert (state["done"], state["total"]) == (1, 2)
    assert choose(again, state, better(state))["kept"]
    before = ask(store, "SELECT * FROM judgements ORDER BY ALL")
    assert choose(client, second, "tie")["kept"] is False  # a page that was left open
    assert choose(again, state, "tie")["kept"] is False
    choose(again, state, "skip")
    assert ask(store, "SELECT * FROM judgements ORDER BY ALL") == before
    assert ask(store, "SELECT count(*) AS n, count(value) AS answers FROM judgements WHERE judge = 'people:ann'") == [
        {"n": 2, "answers": 2}
    ]


def test_the_page_is_blind(tmp_path: Path) -> None:
    store = answered_store(tmp_path / "s.duckdb", 3)
    client = opened(store)
    state = client.get("/state").json()
    assert set(state) == {"done", "total", "skipped", "per_minute", "question"}
    assert set(state["question"]) == {"name", "asked", "prompt", "left", "right"}
    assert set(state["question"]["prompt"][0]) == {"role", "content"}
    everything = "".join(client.get(path).text for path in ("/", "/state", "/page.js", "/page.css"))
    for told in ("completion_", "prompt_", "checkpoint", "policy", "sample", JUDGE, RUN, "people:ann"):
        assert told not in everything
    other = opened(store).get("/state").json()
    assert other["question"]["name"] != state["question"]["name"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> DuckStore:
    """A store with one question, for tests in which nothing is stored."""
    return answered_store(tmp_path_factory.mktemp("people") / "s.duckdb", 1)


@pytest.mark.parametrize("path", ["/", "/state", "/page.js", "/page.css", "/favicon.ico", "/nothing"])
def test_nothing_without_the_token(kept: DuckStore, path: str) -> None:
    app = people_app(session_of(kept), TOKEN)
    for headers in ({}, {"cookie": "sparring=wrong"}, {"cookie": "sparring="}):
        for query in ({}, {"token": "wrong"}, {"token": ""}):
            told = TestClient(app, base_url="http://127.0.0.1:8123").get(path, headers=headers, params=query)
            assert told.status_code == 403
            assert "open the address that spar printed" in told.text
    if path != "/":  # a token in an address ends up in histories: it is taken once, for the cookie
        assert TestClient(app, base_url="http://127.0.0.1").get(path, params={"token": TOKEN}).status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8123", "192.168.1.4:8123", ""]
)
def test_another_host_is_refused(kept: DuckStore, host: str) -> None:
    client = opened(kept)
    told = client.get("/", params={"token": TOKEN}, headers={"host": host})
    assert (told.status_code, "wrong host" in told.text) == (403, True)
    assert opened(kept, "localhost").get("/state").status_code == 200


def test_another_site_cannot_answer(kept: DuckStore) -> None:
    client = opened(kept)
    name = client.get("/state").json()["question"]["name"]
    del client.headers["x-page-token"]  # a form of another page, were the cookie sent along
    answer = {"question": name, "choice": "left"}
    assert client.post("/answer", json=answer).status_code == 403
    assert client.post("/answer", json=answer, headers={"x-page-token": TOKEN}).status_code == 403
    assert ask(kept, "SELECT count(*) AS n FROM judgements WHERE judge = 'people:ann'") == [{"n": 0}]


def test_the_headers_keep_the_page_to_itself(kept: DuckStore) -> None:
    client = opened(kept)
    page = client.get("/", params={"token": TOKEN})
    cookie = page.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    refused = TestClient(client.app, base_url="http://127.0.0.1").get("/")
    for told in (page, refused, client.get("/page.js")):
        policy = told.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert (told.headers["x-content-type-options"], told.headers["cache-control"]) == ("nosniff", "no-store")
    assert "<script>" not in page.text and "style=" not in page.text and "onclick" not in page.text


def test_what_makes_no_sense_is_refused_and_stores_nothing(kept: DuckStore) -> None:
    client = opened(kept)
    name = client.get("/state").json()["question"]["name"]
    wrong: list[tuple[Any, int]] = [
        ({"question": name, "choice": "best"}, 400),
        ({"question": name}, 400),
        ({"question": name, "choice": "left", "value": 1}, 400),
        ([], 400),
        ({"question": "another", "choice": "left"}, 404),
    ]
    for body, status in wrong:
        told = client.post("/answer", json=body)
        assert (told.status_code, bool(told.json()["problem"])) == (status, True)
    assert ask(kept, "SELECT count(*) AS n FROM judgements WHERE judge = 'people:ann'") == [{"n": 0}]


def test_a_busy_store_is_said_and_nothing_counts_as_judged(tmp_path: Path) -> None:
    store = answered_store(tmp_path / "s.duckdb", 1)
    client = opened(store)
    state = client.get("/state").json()
    with FileLock(str(store.db.path) + ".lock"):
        told = client.post("/answer", json={"question": state["question"]["name"], "choice": "left"})
        assert (told.status_code, "another process has held" in told.json()["problem"]) == (503, True)
        assert client.get("/state").json()["question"] == state["question"]
    assert choose(client, state, "left")["done"] == 1


def test_the_socket_is_on_loopback_only_and_a_taken_port_is_said() -> None:
    with listen(0) as sock:
        port = sock.getsockname()[1]
        here = [c.laddr.ip for c in psutil.Process().net_connections("inet") if c.laddr.port == port]
        assert here == ["127.0.0.1"]
        with pytest.raises(EnvironmentProblem, match=f"port {port} cannot be used"):
            listen(port)
