import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.helpers.spar import Said, contents, environment, obey_ctrl_c, project, python, spar_many

pytestmark = pytest.mark.slow

QUERY = "SELECT pair_id, prompt, margin, round FROM pair_texts ORDER BY round"
VALUES = """SELECT sum(n)::HUGEINT AS total, sum(round) AS rounds, 1.5::DECIMAL(3, 1) AS part, NULL AS none,
    DATE '2026-01-02' AS day, [1, 2] AS list, 'a "b", c' AS text, true AS flag
    FROM pairs JOIN (SELECT 3 AS n) ON true"""
ASKED = "SELECT prompt_id FROM prompts WHERE split = $split AND length(meta) >= $n AND source IN $sources ORDER BY ALL"

# A few of tests/helpers/attacks.py; tests/store/test_sealed.py tries them all.
ATTACKS = [
    "DELETE FROM prompts",
    "SELECT 1; DROP TABLE prompts",
    "COPY (SELECT 1) TO 'preferences.duckdb' (FORMAT csv, USE_TMP_FILE false)",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO 'preferences.duckdb.wal'",
    "SELECT * FROM read_text('loop.yaml')",
    "ATTACH 'stolen.duckdb'",
    "SET enable_external_access = true",
    "INSTALL httpfs",
]
QUERIES: dict[str, tuple[object, ...]] = {
    **{name: (QUERY, "--format", name) for name in ("json", "jsonl", "csv", "table")},
    **{f"values {name}": (VALUES, "--format", name) for name in ("json", "csv")},
    "same names": ("SELECT 1 AS a, 2 AS a, 3 AS b", "--format", "json"),
    "no rows": ("FROM prompts WHERE false", "--format", "json"),
    "limit": ("FROM range(100000)", "--limit", "2", "--format", "csv"),
    "limit 0": ("FROM range(100000)", "--limit", "0", "--format", "csv"),
    "many": ("FROM range(1003)",),
    "params": (
        ASKED,
        "--params",
        '{"split": "eval", "n": 2, "sources": ["nowhere", "eval.jsonl"]}',
        "--format",
        "json",
    ),
    "file": ("--file", "query.sql", "--format", "csv"),
    "explain": ("EXPLAIN FROM prompts",),
    "pivot": ("PIVOT (SELECT split FROM prompts) ON split USING count(*)", "--format", "jsonl"),
}
WRONG: dict[str, tuple[tuple[object, ...], str]] = {
    "column": (("SELECT split,\n spilt FROM prompts",), "LINE 2:  spilt FROM prompts\n         ^^^^^"),
    "view": (("FROM promts",), 'Did you mean "prompts"?\n\nLINE 1: FROM promts\n             ^^^^^^'),
    "syntax": (("SELEKT 1",), 'syntax error at or near "SELEKT"'),
    "value": (("SELECT 'x'::INTEGER",), "Could not convert string 'x' to INT32"),
    "no query": (("",), "it has 0 statements"),
    "nothing": ((), "give one query"),
    "two": (("SELECT 1", "--file", "query.sql"), "give one query"),
    "no file": (("--file", "none.sql"), "--file none.sql cannot be read"),
    "missing value": (("SELECT $a",), "Values were not provided for the following parameters: a"),
    "unused value": (("SELECT 1", "--params", '{"a": 1}'), "query failed"),
    "no json": (("SELECT $a", "--params", "a=1"), "is not JSON"),
    "no object": (("SELECT $a", "--params", "[1]"), "--params is [1]"),
    "memory": (("SELECT len(range(3000000000))",), "needs more memory than the 2 GiB"),
    "time": (("SELECT sleep_ms(60000)", "--timeout", "0.2"), "was stopped after 0.2 s"),
    "no copy": (("SELECT 1", "--copy"), "there is no read copy"),
    "ending": (("SELECT 1", "--to", "a.xls"), "--to a.xls"),
    "the store": (("SELECT 1", "--to", "preferences.duckdb", "--format", "csv"), "is a file of the store"),
    "its log": (("SELECT 1", "--to", "./preferences.duckdb.wal", "--format", "csv"), "is a file of the store"),
    "no folder": (("SELECT 1", "--to", "none/a.csv"), "cannot be written"),
    "failed, no file": (("SELECT error('x') FROM prompts", "--to", "failed.csv"), "query failed"),
}


@dataclass(frozen=True)
class Session:
    """What every query said, and the files before and after."""

    said: dict[str, Said]
    before: dict[str, bytes]
    after: dict[str, bytes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sql")
    project(folder)
    (folder / "query.sql").write_text("SELECT 'é' AS text\n")
    return folder


@pytest.fixture(scope="module")
def session(folder: Path) -> Session:
    before = contents(folder)
    asked = {**QUERIES, **{name: words for name, (words, _) in WRONG.items()}, **{each: (each,) for each in ATTACKS}}
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
    assert [(r["pair_id"], r["prompt"], float(r["margin"]), int(r["round"])) for r in rows] == [
        tuple(row.values()) for row in (first, second)
    ]
    # A drawn table keeps whole ids, although its rows are wider than 80 columns.
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in drawn.splitlines() if "Name a bird" in line]
    assert cells == [[first["pair_id"], "Name a bird.", "1", "1"], [second["pair_id"], "Name a bird.", "0.5", "2"]]


def test_values_keep_their_kind(session: Session) -> None:
    wanted = {"total": 6, "rounds": 3, "part": 1.5, "none": None, "day": "2026-01-02", "list": [1, 2]}
    assert json.loads(session.said["values json"].out) == [wanted | {"text": 'a "b", c', "flag": True}]
    (row,) = csv.DictReader(io.StringIO(session.said["values csv"].out))
    assert (row["total"], row["none"], json.loads(row["list"]), row["text"]) == ("6", "", [1, 2], 'a "b", c')
    assert (row["day"], row["flag"], row["part"]) == ("2026-01-02", "true", "1.5")


def test_columns_of_one_name_are_all_there(session: Session) -> None:
    assert json.loads(session.said["same names"].out) == [{"a": 1, "a_1": 2, "b": 3}]


def test_a_query_without_rows_prints_none(session: Session) -> None:
    assert (session.said["no rows"].code, json.loads(session.said["no rows"].out)) == (0, [])


def test_a_limit_cuts(session: Session) -> None:
    assert (session.said["limit"].out, session.said["limit 0"].out) == ("range\n0\n1\n", "range\n")


def test_a_long_table_says_what_it_leaves_out(session: Session) -> None:
    said = session.said["many"]
    assert said.code == 0
    assert "│ 999   │" in said.out
    assert "│ 1000  │" not in said.out
    assert said.err == "these are the first 1000 of 1003 rows; for all of them: --format csv, or --to FILE\n"


def test_parameters_keep_their_kind(session: Session) -> None:
    found = [row["prompt_id"] for row in json.loads(session.said["params"].out)]
    assert len(found) == 2
    assert all(id.startswith("prompt_") for id in found)


def test_a_query_comes_from_a_file_or_standard_input(session: Session, folder: Path) -> None:
    assert session.said["file"].out == 'text\n"é"\n'
    piped = python("-m", "sparring.cli", "sql", "-", "--format", "csv", cwd=folder, given="SELECT\n'é' AS text;\n")
    assert piped == Said(0, 'text\n"é"\n', "")


def test_other_questions_are_answered(session: Session) -> None:
    assert "Table: preferences.main.prompts" in session.said["explain"].out
    assert json.loads(session.said["pivot"].out) == {"eval": 2, "train": 3}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_told_with_its_place_and_remedy(session: Session, name: str) -> None:
    said = session.said[name]
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("spar: ")
    assert WRONG[name][1] in said.err


@pytest.mark.parametrize("attack", ATTACKS)
def test_sql_can_neither_write_nor_read_files(session: Session, attack: str) -> None:
    said = session.said[attack]
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("spar: the query failed: ")


def test_no_query_changed_a_file(session: Session) -> None:
    assert session.after == session.before


def test_files_hold_what_was_asked(folder: Path) -> None:
    names = ("a.parquet", "a.csv", "a.jsonl", "a.json", "a.arrow")
    said = spar_many(*(("sql", QUERY, "--to", name) for name in names), cwd=folder)
    assert [(each.code, each.out, each.err) for each in said] == [(0, "", f"written to {name}\n") for name in names]
    wanted = json.loads((folder / "a.json").read_text())
    assert [row["margin"] for row in wanted] == [1.0, 0.5]
    assert parquet.read_table(folder / "a.parquet").to_pylist() == wanted
    assert pa.ipc.open_stream(folder / "a.arrow").read_all().to_pylist() == wanted
    assert [json.loads(line) for line in (folder / "a.jsonl").read_text().splitlines()] == wanted
    assert not list(folder.glob("*.partial"))


def test_a_reader_that_has_seen_enough_is_no_error(folder: Path) -> None:
    query = f"'{sys.executable}' -m sparring.cli sql 'FROM range(1000000)' --format csv"
    script = f'{query} | head -2; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment(), capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("range\n0\n0\n", "")


def test_ctrl_c_ends_a_query(folder: Path) -> None:
    command = [sys.executable, "-m", "sparring.cli", "sql", "SELECT sleep_ms(60000)"]
    pipe = subprocess.PIPE
    asked = subprocess.Popen(command, cwd=folder, env=environment(), stderr=pipe, text=True, preexec_fn=obey_ctrl_c)
    lock = folder / "preferences.duckdb.lock"
    while not held(lock):
        time.sleep(0.05)
    time.sleep(0.3)
    asked.send_signal(signal.SIGINT)
    _, said = asked.communicate(timeout=10)
    assert (asked.returncode, said) == (130, "spar: the query was interrupted\n")


def held(lock: Path) -> bool:
    from filelock import FileLock, Timeout

    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def test_a_terminal_gets_pages_and_a_pipe_none(folder: Path) -> None:
    seen = "".join(at_terminal(folder, "SELECT range FROM range(300)", PAGER="head -n 2"))
    assert "range" in seen
    assert "│ 0 " not in seen  # the pager was given the table, and took two lines of it
    piped = python("-c", PIPED, cwd=folder)
    assert (piped.code, "│ 299   │" in piped.out) == (0, True)


PIPED = """
import os, sys
os.environ["PAGER"] = "false"
sys.argv = ["spar", "sql", "SELECT range FROM range(300)"]
from sparring.cli import main
main()
"""


def at_terminal(folder: Path, query: str, **more: str) -> Iterator[str]:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "sparring.cli", "sql", query]
    asked = subprocess.Popen(
        command,
        cwd=folder,
        env=environment() | more,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        while data := os.read(ours, 65536):
            yield data.decode(errors="replace")
    except OSError:  # Linux, when the other side has closed
        pass
    finally:
        os.close(ours)
    assert asked.wait(10) == 0
