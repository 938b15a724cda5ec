import csv
import io
import json
from dataclasses import dataclass

import pytest

from tests.spar import Said, contents, project, spar_many

QUERY = "SELECT pair_id, prompt, margin, round FROM pair_texts ORDER BY round"

ATTACKS = [
    "INSERT INTO schema_version (version, name, sha256) VALUES (9, 'a', 'b')",
    "UPDATE prompts SET source = 'x'",
    "DELETE FROM prompts",
    "DROP TABLE prompts",
    "DROP VIEW lineage",
    "ALTER TABLE prompts ADD COLUMN x INTEGER",
    "CREATE TABLE stolen AS SELECT 1",
    "CREATE SCHEMA stolen",
    "SELECT 1; DROP TABLE prompts",
    "COPY prompts TO 'stolen.csv'",
    "COPY prompts FROM 'train.jsonl'",
    "COPY (SELECT 1) TO 'stolen.parquet'",
    "EXPORT DATABASE 'stolen'",
    "SELECT * FROM 'train.jsonl'",
    "SELECT * FROM read_text('loop.yaml')",
    "SELECT * FROM read_blob('/etc/hostname')",
    "SELECT * FROM read_csv('train.jsonl')",
    "SELECT * FROM glob('*')",
    "ATTACH 'stolen.duckdb'",
    "ATTACH 'preferences.duckdb' AS again (READ_WRITE)",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET memory_limit = '1GB'",
    "RESET enable_external_access",
    "PRAGMA enable_external_access = true",
    "CREATE PERSISTENT SECRET stolen (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "SELECT nothing FROM prompts",
    "SELEKT 1",
]


VALUES = """SELECT sum(n)::HUGEINT AS total, sum(round) AS rounds, 1.5::DECIMAL(3, 1) AS part, NULL AS none,
    DATE '2026-01-02' AS day, [1, 2] AS list, 'a "b", c' AS text, true AS flag
    FROM pairs JOIN (SELECT 3 AS n) ON true"""
QUERIES = {
    **{name: (QUERY, "--format", name) for name in ("json", "jsonl", "csv", "table")},
    **{f"values {name}": (VALUES, "--format", name) for name in ("json", "csv")},
    "same names": ("SELECT 1 AS a, 2 AS a, 3 AS b", "--format", "json"),
    "no rows": ("FROM prompts WHERE false", "--format", "json"),
    "no query": ("", "--format", "json"),
}


@dataclass(frozen=True)
class Session:
    """What every query said, and the files before and after."""

    said: dict[str, Said]
    before: dict[str, bytes]
    after: dict[str, bytes]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder = tmp_path_factory.mktemp("sql")
    project(folder)
    before = contents(folder)
    asked = {**QUERIES, **{attack: (attack,) for attack in ATTACKS}}
    said = spar_many(*(("sql", *arguments) for arguments in asked.values()), cwd=folder)
    return Session(dict(zip(asked, said, strict=True)), before, contents(folder))


def test_every_format_says_the_same(session: Session) -> None:
    found = [session.said[name] for name in ("json", "jsonl", "csv", "table")]
    assert [(said.code, said.err) for said in found] == [(0, "")] * 4
    as_json, lines, table, drawn = (said.out for said in found)
    first, second = json.loads(as_json)
    assert first["prompt"] == second["prompt"] == "Name a bird."
    assert [(row["margin"], row["round"]) for row in (first, second)] == [(1.0, 1), (0.5, 2)]
    assert [json.loads(line) for line in lines.splitlines()] == [first, second]
    rows = list(csv.DictReader(io.StringIO(table)))
    assert rows == [{name: str(value) for name, value in row.items()} for row in (first, second)]
    # A drawn table keeps whole ids, although its rows are wider than 80 columns.
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in drawn.splitlines() if "Name a bird" in line]
    assert cells == [[first["pair_id"], "Name a bird.", "1", "1"], [second["pair_id"], "Name a bird.", "0.5", "2"]]


def test_values_keep_their_kind(session: Session) -> None:
    wanted = {"total": 6, "rounds": 3, "part": 1.5, "none": None, "day": "2026-01-02", "list": [1, 2]}
    assert json.loads(session.said["values json"].out) == [wanted | {"text": 'a "b", c', "flag": True}]
    (row,) = csv.DictReader(io.StringIO(session.said["values csv"].out))
    assert (row["total"], row["none"], json.loads(row["list"]), row["text"]) == ("6", "", [1, 2], 'a "b", c')


def test_columns_of_one_name_are_all_there(session: Session) -> None:
    assert json.loads(session.said["same names"].out) == [{"a": 1, "a_1": 2, "b": 3}]


def test_a_query_without_rows_prints_none(session: Session) -> None:
    for name in ("no rows", "no query"):
        assert (session.said[name].code, json.loads(session.said[name].out)) == (0, [])


@pytest.mark.parametrize("attack", ATTACKS)
def test_sql_can_neither_write_nor_read_files(session: Session, attack: str) -> None:
    said = session.said[attack]
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("spar: the query failed: ")


def test_no_query_changed_a_file(session: Session) -> None:
    assert session.after == session.before
