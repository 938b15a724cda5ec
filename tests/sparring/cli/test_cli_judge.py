"""`spar judge` as a person has it: against a server that knows the right verdicts, with and without a store."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sparring.store.db import rows
from sparring.store.store import DuckStore
from tests.helpers.flaky_server import FlakyServer
from tests.helpers.spar import Said, spar_many

pytestmark = pytest.mark.slow

PAIRS = 24


def write_pairs(folder: Path) -> None:
    """The greater merit is labelled better, but in every fourth pair, and every eighth is a tie; two subsets."""
    found = []
    for k in range(PAIRS):
        better, worse = f"merit {500 + k}", f"merit {k}" + " and more words" * (k % 2)
        label = "tie" if k % 8 == 7 else "a" if k % 2 else "b"
        a, b = (better, worse) if label == "a" else (worse, better)
        if k % 4 == 0:
            a, b = b, a  # the label is wrong
        found.append({"prompt": f"question {k}", "response_a": a, "response_b": b, "label": label})
        found[-1]["subset"] = "large" if k < 20 else "small"
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))


def write_judges(folder: Path, url: str) -> None:
    (folder / "llm.yaml").write_text(
        f"kind: llm\nmodel: judge\nendpoint: {{base_url: '{url}', price_in: 1000, price_out: 10000, backoff: 1e-2}}\n"
    )
    (folder / "words.yaml").write_text("kind: rules\nmin_words: 4\n")
    (folder / "rules.yaml").write_text("kind: rules\n")
    (folder / "loop.yaml").write_text(
        "name: x\npolicy: {model: none}\nprompts: {train: none, eval: none}\njudge: {kind: rules, min_words: 4}\n"
    )
    (folder / "wrong.yaml").write_text("name: x\n")
    (folder / "typo.yaml").write_text("kind: rules\nmin_word: 4\n")


@dataclass(frozen=True)
class Session:
    """What commands said, in one process and one folder; and how often the server was asked by all of them."""

    said: dict[str, Said]
    calls: int
    store: DuckStore


COMMANDS: dict[str, tuple[object, ...]] = {
    "bench": ("bench", "llm.yaml", "pairs.jsonl", "--json"),
    "stored": ("bench", "llm.yaml", "pairs.jsonl", "--json", "--store", "b.duckdb"),
    "again": ("bench", "llm.yaml", "pairs.jsonl", "--json", "--store", "b.duckdb"),
    "table": ("bench", "llm.yaml", "pairs.jsonl", "--store", "b.duckdb"),
    "limit": ("bench", "words.yaml", "pairs.jsonl", "--json", "--limit", "5"),
    "seed": ("bench", "words.yaml", "pairs.jsonl", "--json", "--limit", "5", "--seed", "1"),
    "agreement": ("agreement", "llm.yaml", "words.yaml", "--pairs", "pairs.jsonl", "--json", "--store", "b.duckdb"),
    "same": ("agreement", "words.yaml", "loop.yaml", "--pairs", "pairs.jsonl"),
    "one": ("agreement", "words.yaml", "--pairs", "pairs.jsonl"),
    "not applicable": ("canary", "rules.yaml"),
    "words": ("canary", "loop.yaml", "--json"),
    "wrong": ("bench", "wrong.yaml", "pairs.jsonl"),
    "typo": ("bench", "typo.yaml", "pairs.jsonl"),
    "nothing": ("bench", "rules.yaml", "nothing.jsonl"),
}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = tmp_path_factory.mktemp("judge")
    write_pairs(folder)
    with FlakyServer() as server:
        write_judges(folder, server.url)
        said = spar_many(*(("judge", *command) for command in COMMANDS.values()), cwd=folder)
        yield Session(dict(zip(COMMANDS, said, strict=True)), len(server.calls), DuckStore(folder / "b.duckdb"))


def told(session: Session, name: str) -> Any:
    said = session.said[name]
    assert (said.code, said.err.count("Traceback")) == (0, 0), said
    return json.loads(said.out)


def test_bench_measures_and_counts(session: Session) -> None:
    report = told(session, "bench")
    everything, _, small = report["rows"]
    assert [row["subset"] for row in report["rows"]] == ["", "large", "small"]
    assert [row["pairs"] for row in report["rows"]] == [24, 20, 4]
    # 21 labels are no tie; the 6 wrong ones are those where the judge, always right, is wrong.
    assert everything["accuracy"]["decided"] == 21
    assert everything["accuracy"]["share"]["value"] == pytest.approx(15 / 21)
    assert everything["accuracy"]["share"]["low"] < 15 / 21 < everything["accuracy"]["share"]["high"]
    assert small["accuracy"]["share"]["value"] == pytest.approx(2 / 3)
    assert (everything["labelled_ties"], everything["ties_found"]) == (3, 0)
    assert (everything["position"]["duels"], everything["position"]["disagree"]) == (24, 0)
    assert everything["calibration_error"] is not None
    assert (report["judgements"], report["asked"], report["calls"]) == (48, 48, 48)
    assert (report["prompt_tokens"], report["completion_tokens"]) == (4800, 480)
    assert report["cost"] == pytest.approx(4800 / 1e6 * 1000 + 480 / 1e6 * 10_000)
    assert len(report["deltas"]) == 24


def test_a_store_keeps_verdicts_and_has_none_asked_again(session: Session) -> None:
    first, second = told(session, "stored"), told(session, "again")
    assert (first["asked"], second["asked"]) == (48, 0)
    assert session.calls == 2 * 48  # without the store and with it; no other command had to ask
    seconds = {"seconds": 0, "asked": 0}
    assert first | seconds == second | seconds
    assert first["rows"] == told(session, "bench")["rows"]


def test_what_a_bench_leaves_in_the_store(session: Session) -> None:
    with session.store.db.read() as con:
        kinds = rows(con, "SELECT run_id, origin, policy_id, count(*) AS n FROM completions GROUP BY ALL")
        judged = rows(con, "SELECT count(*) AS n, count(value) AS answered FROM judgements WHERE judge LIKE 'llm-%'")
        calls = rows(con, "SELECT count(*) AS calls, sum(cost) AS cost FROM judge_calls")
        judges = rows(con, "SELECT kind FROM judges ORDER BY kind")
        ours = rows(con, "SELECT count(*) AS n FROM runs")
    assert kinds == [{"run_id": "bench-pairs", "origin": "dataset", "policy_id": "", "n": 48}]
    assert judged == [{"n": 48, "answered": 48}]
    assert calls == [{"calls": 48, "cost": pytest.approx(9.6)}]
    assert judges == [{"kind": "llm"}, {"kind": "rules"}]
    assert ours == [{"n": 0}]  # a bench is no run: status and resume do not see it


def test_bench_as_a_table(session: Session) -> None:
    said = session.said["table"]
    assert said.code == 0
    assert "accuracy" in said.out and "longer wins" in said.out and "0.714 [" in said.out
    assert "large" in said.out and "small" not in said.out
    assert "1 subsets of fewer than 20 pairs are not shown" in said.err
    assert "48 judgements, 0 of them made now" in said.err
    assert "48 calls, 0 failed, 4800 + 480 tokens, cost 9.6000" in said.err


def test_limit_draws_by_the_seed(session: Session) -> None:
    one, other = told(session, "limit"), told(session, "seed")
    assert one["rows"][0]["pairs"] == other["rows"][0]["pairs"] == 5
    assert set(one["deltas"]) != set(other["deltas"])
    assert one["rows"][0]["position"] is None and one["cost"] is None


def test_agreement_of_two_judges(session: Session) -> None:
    # The rules want four words, and every second pair has an answer with them: the worse one. There the two are
    # opposed; in the other pairs the rules tie.
    [found] = told(session, "agreement")
    assert (found["pairs"], found["agreement"], found["opposed"]) == (24, 0.0, 0.5)
    assert found["judge"].startswith("llm-") and found["other_judge"].startswith("rules-")
    assert found["kappa"] < 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("same", "expected different ones"),
        ("one", "there is one judge, words.yaml"),
        ("wrong", "wrong.yaml has the keys name; expected `kind:`"),
        ("typo", "has no option 'min_word' (did you mean 'min_words'?)"),
        ("nothing", "nothing.jsonl"),
    ],
)
def test_what_cannot_be_done_says_why(session: Session, name: str, message: str) -> None:
    said = session.said[name]
    assert (said.code, said.out) == (2, "")
    assert message in said.err


def test_canaries_of_rules(session: Session) -> None:
    said = session.said["not applicable"]
    assert said.code == 0
    assert "not applicable, it has no answer to any of these prompts: no rule" in said.err
    report = session.said["words"]
    assert report.code == 1
    found = json.loads(report.out)
    assert not found["passed"]
    assert found["failures"][0].startswith("constant: wins")  # four words are easily written


def test_the_judge_that_always_says_a_fails_its_canaries(tmp_path: Path) -> None:
    with FlakyServer(always="A") as server:
        write_judges(tmp_path, server.url)
        drawn, again = spar_many(
            ("judge", "canary", "llm.yaml", "--store", "c.duckdb"),
            ("judge", "canary", "llm.yaml", "--store", "c.duckdb", "--json"),
            cwd=tmp_path,
        )
        assert len(server.calls) == 112  # the second time, the store knew
    assert drawn.code == again.code == 1
    assert "FAILED undecided" in drawn.err and "in 100% of duels its winner changes with the order" in drawn.err
    report = json.loads(again.out)
    assert (report["passed"], report["calls"]) == (False, 112)
    assert {row["strategy"] for row in report["rows"]} == {"constant", "empty", "identical", "injecting"}


def test_an_endpoint_that_goes_away_loses_no_verdict(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    command = ("judge", "bench", "llm.yaml", "pairs.jsonl", "--json", "--store", "b.duckdb")
    with FlakyServer(delay=0.02) as server:
        server.spoil = lambda text, before: "401" if len(server.calls) == 20 else ""  # which ends the first command
        write_judges(tmp_path, server.url)
        stopped, finished = spar_many(command, command, cwd=tmp_path)
        asked = [call.text for call in server.calls]
    assert (stopped.code, stopped.out) == (1, "")
    assert finished.code == 0, finished.err
    report = json.loads(finished.out)
    in_flight = 8
    assert 48 - 20 - in_flight <= report["asked"] <= 48 - 20 + in_flight
    assert len(set(asked)) == 48 and len(asked) <= 48 + in_flight
    assert report["rows"][0]["accuracy"]["share"]["value"] == pytest.approx(15 / 21)
