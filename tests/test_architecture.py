"""Imports point one way: sparring -> flows -> judges, store -> loop. And the core imports in milliseconds."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

ROOMS = ("loop", "judges", "store", "flows", "sparring")

# What a room may import of the others: a room, or single modules of it. `sparring` is what is in the folder itself.
MAY_IMPORT = {
    "loop": set[str](),
    "judges": {"sparring.loop"},
    "store": {"sparring.loop.types", "sparring.loop.errors"},
    "flows": {"sparring.loop", "sparring.judges", "sparring.store"},
    "sparring": {"sparring"},
}
# Names that once stood for several things at a time, see docs/modules.md for what each module holds.
CONFUSING = {
    *("judging", "judges", "judge", "label", "labels", "operate", "operating", "operations"),
    *("pairs", "preferences", "preference", "preference_objectives", "descent", "queries", "reading", "data"),
}
CORE = [
    *("types", "parts", "errors", "round", "pairing", "pairing.pipeline", "pairing.checks", "judgements", "aggregate"),
    *("options", "prompts", "labelled_pairs", "evaluator"),
]
HEAVY = {"torch", "vllm", "transformers", "accelerate", "datasets", "prefect", "duckdb", "pyarrow", "pydantic"}


def modules(room: str) -> list[Path]:
    """The files of a room; links to the other rooms are not followed."""
    return sorted(p for p in (ROOT / room).rglob("*.py") if not any(q.is_symlink() for q in p.parents))


def imported(tree: ast.AST) -> Iterator[str]:
    """The full names that are imported: a.b for `import a.b`, a.b and a.b.c for `from a.b import c`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here, so that they can be read off"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(name: str, allowed: set[str]) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in allowed)


def upward(room: str, source: str) -> set[str]:
    """What `source`, a module of `room`, imports of ours and may not; imports inside functions count."""
    allowed = MAY_IMPORT[room] | {f"sparring.{room}"}
    names = {name for name in imported(ast.parse(source)) if name.split(".")[0] in ROOMS}
    return {name for name in names if not is_within(name, allowed)}


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_inwards(room: str) -> None:
    files = modules(room)
    assert len(files) > 20
    wrong = {str(path.relative_to(ROOT)): upward(room, path.read_text(encoding="utf-8")) for path in files}
    assert {path: names for path, names in wrong.items() if names} == {}


def test_tests_share_code_through_helpers_only() -> None:
    wrong = {
        str(path.relative_to(ROOT)): name
        for path in modules("tests")
        for name in imported(ast.parse(path.read_text(encoding="utf-8")))
        if is_within(name, {"tests"}) and not is_within(name, {"tests.helpers"})
    }
    assert wrong == {}


def test_a_wrong_import_would_be_found() -> None:
    assert upward("store", "def f():\n    from sparring.loop.round import play") == {"sparring.loop.round.play"}
    assert upward("loop", "import sparring.store.db as db") == {"sparring.store.db"}
    assert upward("judges", "from sparring.flows import compose") == {"sparring.flows.compose"}
    assert upward("flows", "from sparring.report import write_report") == {"sparring.report.write_report"}
    assert upward("flows", "from sparring import run") == {"sparring.run"}
    assert upward("sparring", "from loop.types import Prompt") == {
        "loop.types.Prompt"
    }  # the bare name is another module
    assert upward("store", "from sparring.loop.types import Prompt\nimport sparring.store.db, duckdb") == set()


def test_a_path_says_what_is_inside() -> None:
    files = [path for room in ROOMS for path in modules(room)]
    assert [str(p.relative_to(ROOT)) for p in files if p.stem in CONFUSING] == []
    loose = [p.name for p in (ROOT / "flows").iterdir() if p.is_file()]
    assert len(loose) <= 3


@pytest.mark.parametrize("name", CORE)
def test_a_module_of_the_core_is_light(name: str) -> None:
    path = ROOT / "loop" / name.replace(".", "/")
    files = sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    assert files
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        assert {each.split(".")[0] for each in imported(top)} & HEAVY == set(), file


def loaded_by(script: str) -> set[str]:
    """The full names of the modules that a script loads."""
    script = f"import sys\n{script}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_core_loads_nothing_heavy() -> None:
    loaded = loaded_by(f"import {', '.join(f'sparring.loop.{name}' for name in CORE)}")
    assert "sparring.loop.round" in loaded
    assert {name.split(".")[0] for name in loaded} & HEAVY == set()


def test_judges_by_name_load_nothing_heavy() -> None:
    """A config is checked against every judge's signature, so that must not cost a start of torch."""
    loaded = loaded_by("from sparring.judges import JUDGES\nfor kind in JUDGES: JUDGES[kind]")
    assert "sparring.judges.active" in loaded
    heavy = {"torch", "vllm", "transformers", "openai", "prefect", "peft"}
    assert {name.split(".")[0] for name in loaded} & heavy == set()
