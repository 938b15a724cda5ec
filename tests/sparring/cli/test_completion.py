"""The Tab key, as bash presses it."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from tests.helpers.records import Filled
from tests.helpers.spar import contents, environment, project, python

pytestmark = pytest.mark.slow

HEAVY = {"torch", "vllm", "prefect", "transformers", "accelerate"}
# `spar` as a console script: its name is in what bash is told, and in the variable that it sets.
SPAR = """#!{python}
import sys
from sparring.cli import main
sys.argv[0] = "spar"
main()
"""
PRESSED = """
COMP_WORDS=({words})
COMP_CWORD={last}
_spar_completion spar
printf '%s\\n' "${{COMPREPLY[@]}}"
"""

Press = Callable[..., list[str]]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    return project(tmp_path_factory.mktemp("completion"))


@pytest.fixture(scope="module")
def press(tmp_path_factory: pytest.TempPathFactory) -> Press:
    """Press Tab after these words in a folder; returns what bash offers."""
    bin_ = tmp_path_factory.mktemp("bin")
    (bin_ / "spar").write_text(SPAR.format(python=sys.executable))
    (bin_ / "spar").chmod(0o755)

    def bash(script: str, folder: Path, **variables: str) -> str:
        env = environment() | variables
        env["PATH"] = f"{bin_}:{env['PATH']}"
        command = ["bash", "-c", f"{script}\n:"]  # with the last line bash stays, and is whom `spar` finds itself under
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=True)
        assert done.stderr == ""
        return done.stdout

    completion = bash("spar --show-completion bash", bin_)
    assert "complete -o default -F _spar_completion spar" in completion

    def pressed(folder: Path, *words: str, **variables: str) -> list[str]:
        words_ = " ".join(map(shlex.quote, ("spar", *words)))
        return bash(completion + PRESSED.format(words=words_, last=len(words)), folder, **variables).split()

    return pressed


def test_commands_are_completed(press: Press, tmp_path: Path) -> None:
    assert press(tmp_path, "st") == ["status", "store"]


def test_templates_are_completed(press: Press, tmp_path: Path) -> None:
    assert press(tmp_path, "init", "--template", "q") == ["quickstart"]


def test_run_names_come_from_the_store_that_is_meant(press: Press, filled: Filled, tmp_path: Path) -> None:
    home, path = filled.store.db.path.parent, str(filled.store.db.path)
    before = contents(home)
    assert press(home, "status", "") == ["tiny"]  # the default file
    assert press(home, "resume", "x") == []
    assert press(tmp_path, "status", "--store", path, "t") == ["tiny"]
    assert press(tmp_path, "status", "t", SPARRING_STORE=path) == ["tiny"]
    assert press(tmp_path, "export", "pairs", "--store", path, "--run", "t") == ["tiny"]
    assert contents(home) == before


def test_without_a_store_nothing_is_offered_and_nothing_is_made(press: Press, tmp_path: Path) -> None:
    assert press(tmp_path, "status", "t") == []
    (tmp_path / "preferences.duckdb").write_text("not a database")
    assert press(tmp_path, "status", "t") == []
    assert {path.name for path in tmp_path.iterdir()} <= {"preferences.duckdb", "preferences.duckdb.lock"}


def test_a_busy_store_is_not_waited_for(press: Press, filled: Filled) -> None:
    began = time.monotonic()
    with duckdb.connect(str(filled.store.db.path)):
        assert press(filled.store.db.path.parent, "status", "t") == []
    assert time.monotonic() - began < 45  # a command would wait for 60 s


def test_completing_loads_nothing_heavy(filled: Filled) -> None:
    os.environ.update(COMP_WORDS="spar status t", COMP_CWORD="2", _SPAR_COMPLETE="complete_bash")
    script = "import sys; sys.argv = ['spar']; from sparring.cli import main; main()"
    said = python("-X", "importtime", "-c", script, cwd=filled.store.db.path.parent)
    for name in ("COMP_WORDS", "COMP_CWORD", "_SPAR_COMPLETE"):
        del os.environ[name]
    assert said.out.split() == ["tiny"]
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in said.err.splitlines()}
    assert "duckdb" in loaded  # so the list is one of imports
    assert not loaded & HEAVY
