import csv
import io
import json
from dataclasses import dataclass

import pytest

from sparring.store.questions import QUESTIONS
from tests.helpers.records import filled_store
from tests.helpers.spar import Said, spar_many

pytestmark = pytest.mark.slow

COMMANDS = {
    "list": ("ask", "--format", "json"),
    "list for people": ("ask",),
    **{f"results {format}": ("ask", "results", "--format", format) for format in ("json", "jsonl", "csv", "table")},
    "by name": ("ask", "pair_yield", "--run", "hand", "--format", "json"),
    "by id": ("ask", "pair_yield", "--run", "hand-00000000", "--format", "json"),
    "sql": ("sql", "SELECT * FROM pair_yield ORDER BY run_id, round", "--format", "json"),
    "two": ("ask", "results", "--limit", "2", "--format", "json"),
    "three": ("ask", "results", "--limit", "3", "--format", "json"),
    "all": ("ask", "results", "--limit", "0", "--format", "json"),
    "nothing": ("ask", "judge_costs", "--format", "json"),
    "no such question": ("ask", "pair_yeild"),
    "no such run": ("ask", "results", "--run", "other"),
}


@dataclass(frozen=True)
class Session:
    """What the commands said beside a store, and one of them where there is none."""

    said: dict[str, Said]
    without_store: Said
    listed_without_store: Said


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder, empty = tmp_path_factory.mktemp("ask"), tmp_path_factory.mktemp("empty")
    filled_store(folder / "preferences.duckdb")
    *said, refused, listed = spar_many(*COMMANDS.values(), (empty, "ask", "results"), (empty, "ask"), cwd=folder)
    return Session(dict(zip(COMMANDS, said, strict=True)), refused, listed)


def test_without_a_question_all_are_listed(session: Session) -> None:
    listed = json.loads(session.said["list"].out)
    assert {row["question"]: row["asks"] for row in listed} == {name: each.asks for name, each in QUESTIONS.items()}
    assert all(name in session.said["list for people"].out for name in QUESTIONS)
    assert session.listed_without_store == session.said["list for people"]


def test_every_format_says_the_same(session: Session) -> None:
    found = [session.said[f"results {format}"] for format in ("json", "jsonl", "csv", "table")]
    assert [(said.code, said.err) for said in found] == [(0, "")] * 4
    rows = json.loads(found[0].out)
    assert [(row["round"], row["pass_rate"], row["accepted"]) for row in rows] == [
        (0, 0.5, True), (1, 0.75, True), (2, 0.25, False)
    ]  # fmt: skip
    assert [json.loads(line) for line in found[1].out.splitlines()] == rows
    assert [row["candidate_id"] for row in csv.DictReader(io.StringIO(found[2].out))] == [
        f"checkpoint_{name}" for name in ("initial", "one", "two")
    ]
    assert "0.625" in found[3].out and "candidate_id" not in found[3].out  # a table has the usual columns


def test_a_run_is_named_or_given_by_its_id_and_sql_says_the_same(session: Session) -> None:
    by_name, by_id, sql = (json.loads(session.said[name].out) for name in ("by name", "by id", "sql"))
    assert by_name == by_id == sql
    assert [row["holds"] for row in sql] == [True, True]


def test_rows_that_are_not_shown_are_named(session: Session) -> None:
    assert [row["round"] for row in json.loads(session.said["two"].out)] == [0, 1]
    assert session.said["two"].err == "the first 2 rows; --limit 0 gives all\n"
    for name in ("three", "all"):
        assert len(json.loads(session.said[name].out)) == 3
        assert session.said[name].err == ""
    assert json.loads(session.said["nothing"].out) == []


def test_what_there_is_not_is_refused(session: Session) -> None:
    for name, words in (
        ("no such question", "no question 'pair_yeild' (did you mean 'pair_yield'?)"),
        ("no such run", "has no run other"),
    ):
        said = session.said[name]
        assert (said.code, said.out) == (2, "")
        assert words in said.err
    assert session.without_store.code != 0
    assert "there is no store at" in session.without_store.err
