"""store.open: what notebooks ask."""

import datetime
import importlib.util
import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from sparring import store
from sparring.loop.errors import ConfigError, EnvironmentProblem, StoreError
from sparring.store.db import Database
from sparring.store.reader import Reader, answer, distinct
from sparring.store.store import DuckStore
from tests.helpers.paths import ROOT
from tests.helpers.records import RUN, filled_store, prompt


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reading") / "a.duckdb"
    filled_store(path)
    return path


@pytest.fixture(scope="module")
def notebook(path: Path) -> Reader:
    return store.open(path)


def test_an_answer_in_every_shape(notebook: Reader) -> None:
    found = notebook.sql("SELECT round, margin FROM pair_texts WHERE run_id = $run ORDER BY round", run=RUN)
    wanted = [{"round": 1, "margin": 1.0}, {"round": 2, "margin": 0.5}]
    assert (len(found), found.columns, found.rows()) == (2, ["round", "margin"], wanted)
    assert found.arrow().schema == pa.schema([("round", pa.int32()), ("margin", pa.float64())])
    assert found.arrow().to_pylist() == pa.table(found).to_pylist() == wanted
    assert found.pandas().to_dict("records") == wanted
    assert repr(found).startswith("2 rows of round, margin; see .rows()")


def test_polars_or_what_to_install(notebook: Reader) -> None:
    found = notebook.sql("SELECT 1 AS a")
    if importlib.util.find_spec("polars"):
        assert found.polars().to_dicts() == [{"a": 1}]
    else:
        with pytest.raises(EnvironmentProblem, match="polars is not installed; install it with: pip install polars"):
            found.polars()


def test_values_of_parameters_keep_their_kind(notebook: Reader) -> None:
    day = datetime.date(2026, 1, 2)
    found = notebook.sql(
        "SELECT $day AS day, $n + 1 AS n, $many AS many, $none AS nothing", day=day, n=1, many=[1], none=None
    )
    assert found.rows() == [{"day": day, "n": 2, "many": [1], "nothing": None}]
    assert notebook.sql("SELECT $query AS q", query="x").rows() == [{"q": "x"}]


def test_tables_views_and_columns_tell_what_is_there(notebook: Reader) -> None:
    tables = {row["name"]: row for row in notebook.tables().rows()}
    assert tables["prompts"]["columns"][:3] == ["prompt_id", "messages", "split"]
    assert tables["prompts"]["rows"] == 5
    views = {row["name"]: row for row in notebook.views().rows()}
    assert views["pair_texts"]["comment"].startswith("Every preference pair with its prompt")
    assert "margin" in views["pair_texts"]["columns"]
    assert all(row["comment"] for row in views.values())
    assert {(r["name"], r["type"]) for r in notebook.columns("win_rates").rows()} >= {
        ("n", "INTEGER"),
        ("low", "DOUBLE"),
    }


def test_a_notebook_shows_texts_as_text(notebook: Reader) -> None:
    shown = notebook.sql("SELECT '<script>alert(1)</script>' AS \"<b>\", NULL AS none FROM range(21)")._repr_html_()
    assert "<script>" not in shown
    assert "<b>" not in shown
    assert shown.count("<td>&lt;script&gt;alert(1)&lt;/script&gt;</td><td></td>") == 20
    assert "<th>&lt;b&gt;</th><th>none</th>" in shown
    assert "<p>21 rows, the first 20 shown</p>" in shown


def test_columns_of_one_name_get_numbers() -> None:
    assert distinct(["a", "a", "a_1", "b", "a"]) == ["a", "a_2", "a_1", "b", "a_3"]


def test_mistakes_are_told_with_place_and_remedy(notebook: Reader, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'(?s)Did you mean "prompts"\?\n\nLINE 2: FROM promts\n +\^'):
        notebook.sql("SELECT 1\nFROM promts")
    with pytest.raises(ConfigError, match="INSERT is refused"):
        notebook.sql("INSERT INTO prompts SELECT * FROM prompts")
    with pytest.raises(
        ConfigError, match=r"^the query failed: .*Could not convert string"
    ):  # in a row far behind the first batch
        notebook.sql("SELECT (CASE WHEN range < 500000 THEN '1' ELSE 'x' END)::INTEGER FROM range(500001)")
    with pytest.raises(StoreError, match=r"there is no store at .*none\.duckdb; start one with: spar run CONFIG"):
        store.open(tmp_path / "none.duckdb")
    assert not list(tmp_path.iterdir())


def test_a_question_that_takes_too_long_is_ended_and_the_store_is_free(path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"stopped after 0\.2 s, because a run may be waiting"):
        store.open(path, seconds=0.2).sql(
            "SELECT sum(hash(a.range + b.range)) FROM range(10000000) a, range(10000000) b"
        )
    assert time.monotonic() - began < 5
    assert DuckStore(path, wait=0.2).add([[prompt("Is it free?")]]) == 1


def test_a_slow_reader_of_an_answer_keeps_nobody_waiting(path: Path) -> None:
    with answer(Database(path), "FROM range(100000)", seconds=10) as batches:
        assert batches.read_next_batch().num_rows > 0
        assert DuckStore(path, wait=0.2).add([[prompt("Written while an answer is read?")]]) == 1
        assert sum(batch.num_rows for batch in batches) > 0


def test_a_big_answer_is_not_held_in_memory(path: Path) -> None:
    """200 MB of text pass; Arrow holds a few batches of them."""
    before, most = pa.total_allocated_bytes(), 0
    with answer(Database(path), "SELECT repeat('x', 1000) AS a FROM range(200000)", seconds=30) as batches:
        for batch in batches:
            most = max(most, pa.total_allocated_bytes() - before)
            assert batch.num_rows <= 10_000
    assert most < 40 * 2**20


def test_a_limit_is_exact(path: Path) -> None:
    for limit, wanted in ((0, 0), (1, 1), (15_000, 15_000), (None, 30_000), (40_000, 30_000)):
        with answer(Database(path), "FROM range(30000)", seconds=10, limit=limit) as batches:
            assert batches.read_all().num_rows == wanted


def test_an_open_notebook_and_another_process(path: Path, notebook: Reader) -> None:
    assert notebook.sql("SELECT 1").rows()
    process = multiprocessing.get_context("spawn").Process(target=write, args=(path,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert notebook.sql("SELECT count(*) AS n FROM prompts WHERE messages LIKE '%another process%'").rows() == [
        {"n": 1}
    ]


def write(path: Path) -> None:
    assert DuckStore(path, wait=1).add([[prompt("From another process?")]]) == 1


def test_importing_store_is_light_and_leaves_open_alone() -> None:
    script = "import sys; from sparring import store; print(*sys.modules); assert open is __builtins__.open; store.open"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"duckdb", "pyarrow", "numpy", "pandas"} & set(done.stdout.split()) == set()
