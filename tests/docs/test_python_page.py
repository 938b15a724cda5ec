"""docs/python.md, run from top to bottom as a notebook would; and what importing sparring costs."""

import re
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

import sparring
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
CELLS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
HEAVY = {"torch", "vllm", "prefect", "transformers", "duckdb", "pyarrow", "pydantic"}


@pytest.fixture(scope="module")
def notebook(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that the cells leave; the page's model and engine are exchanged for small ones."""
    small = {
        '"bundled/smollm2-135m-instruct"': repr(str(tiny)),
        '"max_tokens": 48': '"max_tokens": 12, "engine": "transformers"',
    }
    names: dict[str, Any] = {"__name__": "__main__", "shown": []}
    with chdir(tmp_path_factory.mktemp("notebook")):
        for cell in CELLS:
            for text, other in small.items():
                cell = cell.replace(text, other)
            *body, last = cell.rstrip().split("\n")
            exec("\n".join(body), names)
            names["shown"].append(eval(last, names))
        names["folder"] = Path.cwd()
    return names


def test_two_rounds_are_played_with_own_objects(notebook: dict[str, Any]) -> None:
    result = notebook["result"]
    assert (result.rounds, result.waiting, result.run_id.rpartition("-")[0]) == (2, None, "brief")
    assert (result.policy / "model.safetensors").is_file()
    rounds, summary, best = notebook["shown"]
    assert rounds == 2
    assert [row["round"] for row in summary] == [0, 1, 2]
    assert all(row["pairs"] for row in summary[1:])
    assert len(best) == 3 and best[0]["chosen"] != best[0]["rejected"]


def test_what_is_stored_names_the_parts_and_their_source(notebook: dict[str, Any]) -> None:
    with chdir(notebook["folder"]):
        rows = notebook["result"].sql(
            "SELECT DISTINCT algorithm, builder, judge FROM updates, pairs, (SELECT DISTINCT judge FROM judgements)"
        )
        ((algorithm, builder, judge),) = [tuple(row.values()) for row in rows.rows()]
    assert re.fullmatch(r"squared_hinge@[0-9a-f]{8}", algorithm)
    assert re.fullmatch(r"extremes@[0-9a-f]{8}", builder)
    assert re.fullmatch(r"brevity@[0-9a-f]{12}", judge)


def test_the_same_call_again_changes_nothing(notebook: dict[str, Any]) -> None:
    with chdir(notebook["folder"]):
        before = notebook["result"].sql("SELECT count(*) AS n FROM completions").rows()
        again = sparring.run(notebook["config"], quiet=True)
        assert again == notebook["result"]
        assert again.sql("SELECT count(*) AS n FROM completions").rows() == before


def test_every_name_is_there_and_documented() -> None:
    table = PAGE[PAGE.index("## Names") :]
    assert sorted(re.findall(r"`(\w+)`", table)) == sorted(sparring.__all__)
    for name in sparring.__all__:
        assert getattr(sparring, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'ran'"):
        sparring.ran  # noqa: B018


def test_importing_sparring_loads_nothing_heavy() -> None:
    script = "import sys, sparring; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "sparring" in loaded
    assert {name.split(".")[0] for name in loaded} & HEAVY == set()
