"""The arrow points inwards: flows -> judges, store -> loop. And the core of the loop imports in milliseconds."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"loop", "judges", "store", "flows"}

# What a package may import of ours besides itself: a package, or single modules of it.
MAY_IMPORT = {
    "loop": set[str](),
    "judges": {"loop"},
    "store": {"loop.types", "loop.errors"},
    "flows": {"loop", "judges", "store"},
}
CORE = [
    "types",
    "parts",
    "errors",
    "round",
    "pairs",
    "pairing",
    "pairing.checks",
    "judging",
    "aggregate",
    "options",
    "prompts",
    "preferences",
    "evaluator",
]
HEAVY = {"torch", "vllm", "transformers", "accelerate", "datasets", "prefect", "duckdb", "pyarrow", "pydantic"}


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


def strangers(package: str, source: str) -> set[str]:
    """What `source`, a module of `package`, imports of ours and may not; imports inside functions count."""
    names = {name for name in imported(ast.parse(source)) if name.split(".")[0] in OURS - {package}}
    return {name for name in names if not is_within(name, MAY_IMPORT[package])}


@pytest.mark.parametrize("package", sorted(OURS))
def test_packages_import_only_inwards(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 2
    found = {str(path.relative_to(ROOT)): strangers(package, path.read_text(encoding="utf-8")) for path in files}
    assert {path: names for path, names in found.items() if names} == {}


def test_a_wrong_import_would_be_found() -> None:
    assert strangers("store", "def f():\n    from loop.round import play") == {"loop.round.play"}
    assert strangers("loop", "import store.db as db") == {"store.db"}
    assert strangers("judges", "from flows import build") == {"flows.build"}
    assert strangers("store", "from loop.types import Prompt\nimport loop.errors\nimport store.db, duckdb") == set()


@pytest.mark.parametrize("name", CORE)
def test_a_module_of_the_core_is_light(name: str) -> None:
    path = ROOT / "loop" / name.replace(".", "/")
    files = sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    assert files
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        assert {each.split(".")[0] for each in imported(top)} & HEAVY == set(), file


def test_importing_the_core_loads_nothing_heavy() -> None:
    script = f"import sys\nimport {', '.join(f'loop.{name}' for name in CORE)}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "loop" in loaded
    assert loaded & HEAVY == set()


def test_judges_by_name_load_nothing_heavy() -> None:
    """A config is checked against every judge's signature, so that must not cost a start of torch."""
    script = (
        "import sys\nfrom flows.judges import JUDGES, judge_factory\n"
        "for kind in JUDGES: judge_factory(kind)\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "judges" in loaded
    assert loaded & {"torch", "vllm", "transformers", "openai", "prefect", "peft"} == set()
