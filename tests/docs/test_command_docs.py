"""docs/command-line.md and docs/trackers.md say what the command line really does."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from sparring.cli import app
from sparring.flows.run.trackers import LOGGED, MAKERS, PROJECT
from sparring.loop.errors import SparError
from sparring.templates import TEMPLATES
from tests.helpers.pages import blocks
from tests.helpers.paths import ROOT
from tests.helpers.spar import project, python, spar_many

PAGE = (ROOT / "docs" / "command-line.md").read_text()
TRACKERS = (ROOT / "docs" / "trackers.md").read_text()


def leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with all its words."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, (*path, name))
    if not getattr(command, "commands", {}):
        yield " ".join(path), command


def options(command: Any) -> set[str]:
    return {max(p.opts, key=len) for p in command.params if p.param_type_name == "option"} - {"--help"}


REAL = {name: options(command) for name, command in leaves(get_command(app), ("spar",))}


def documented() -> dict[str, set[str]]:
    rows = [line.split("|")[1:3] for line in PAGE.splitlines() if line.startswith("| `spar ")]
    return {re.split(r" [A-Z\[]", cell.strip(" `"))[0]: set(re.findall(r"`(--[\w-]+)`", given)) for cell, given in rows}


def test_every_command_is_named_and_every_named_one_exists() -> None:
    assert set(documented()) == set(REAL)


@pytest.mark.parametrize("name", sorted(REAL))
def test_a_command_has_the_options_that_the_page_gives_it(name: str) -> None:
    assert documented()[name] == REAL[name]


@pytest.mark.slow
def test_the_commands_of_the_page_work(tmp_path: Path) -> None:
    commands = [words for words in blocks(PAGE) if words != ["--install-completion"]]
    assert len(commands) == len(blocks(PAGE)) - 1 == 6
    said = spar_many(*map(tuple, commands), cwd=tmp_path)
    assert [each.code for each in said] == [0] * len(commands)
    assert {folder.name for folder in tmp_path.iterdir()} == {"my-loop", "chat", "gradient", "judged", "rewarded"}
    assert all(f"`{name}`" in PAGE for name in TEMPLATES)


@pytest.mark.slow
def test_the_commands_of_the_page_on_trackers_work(tmp_path: Path) -> None:
    project(tmp_path)
    for words in blocks(TRACKERS):
        said = spar_many((*words, "--dry-run"), cwd=tmp_path)[0]
        assert said.code == 0, said.err
        assert "trackers:\n- tensorboard" in said.out


def test_the_page_on_trackers_names_them_all() -> None:
    rows = [line.split("|")[1:3] for line in TRACKERS.splitlines() if line.startswith("| ") and "`pip" in line]
    assert {name.strip(): cell.strip() for name, cell in rows} == {
        name: f"`pip install 'sparring[{name}]'`" for name in MAKERS
    }
    assert f"--project {PROJECT}" in TRACKERS
    assert LOGGED in TRACKERS


def test_every_exit_code_is_documented() -> None:
    codes = {error.exit_code for error in _subclasses(SparError)}
    given = {int(code) for cell in re.findall(r"^\| ([\d, ]+) \|", PAGE, re.MULTILINE) for code in cell.split(",")}
    assert codes | {0, 130, 137, 143} == given


def _subclasses(error: type[SparError]) -> Iterator[type[SparError]]:
    yield error
    for each in error.__subclasses__():
        yield from _subclasses(each)


@pytest.mark.slow
def test_completion_installs_itself_for_bash(tmp_path: Path) -> None:
    script = f"""
import subprocess, sys
inner = "import sys; sys.argv = ['spar', '--install-completion']; from sparring.cli import main; main()"
sys.exit(subprocess.run(["bash", "-c", '"$0" -c "$1"; exit $?', {sys.executable!r}, inner]).returncode)
"""
    home = os.environ.get("HOME")
    os.environ["HOME"] = str(tmp_path)
    try:
        with chdir(tmp_path):
            said = python("-c", script, cwd=tmp_path)
    finally:
        if home is not None:
            os.environ["HOME"] = home
    assert said.code == 0, said.err
    assert "_spar_completion" in "".join(f.read_text() for f in tmp_path.rglob("*") if f.is_file())
