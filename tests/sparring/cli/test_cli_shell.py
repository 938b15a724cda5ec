"""`spar shell`, from a pipe and at a terminal."""

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sparring.store.store import DuckStore
from tests.helpers.records import prompt
from tests.helpers.spar import Said, environment, obey_ctrl_c, project, python

pytestmark = pytest.mark.slow

SCRIPT = """\
SELECT 1 AS a; SELECT ';' AS b;

SELECT -- not the end ;
  2 AS c
  ;;
.schema win_rates
.views
.tables
SELECT 3 AS d
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shell")
    project(folder)
    return folder


def shell(folder: Path, given: str, *options: str) -> Said:
    return python("-m", "sparring.cli", "shell", *options, cwd=folder, given=given)


def test_statements_from_a_pipe_are_answered_one_by_one(folder: Path) -> None:
    said = shell(folder, SCRIPT, "--format", "jsonl")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[:3] == ['{"a": 1}', '{"b": ";"}', '{"c": 2}']
    assert lines[3].startswith('{"name": "run_id", "type": "VARCHAR", ')
    assert sum('"name": "pair_texts", "comment": "Every preference pair' in line for line in lines) == 1
    assert sum('{"name": "pairs", ' in line for line in lines) == 1
    assert lines[-1] == '{"d": 3}'


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (".shell touch stolen\n", "there is no command '.shell touch stolen'; .help lists them"),
        ("COPY (SELECT 1) TO 'stolen';\n", "COPY is refused"),
        ("SELECT nothing;\n", 'column "nothing"'),
    ],
)
def test_the_first_error_in_a_pipe_ends_it(folder: Path, given: str, message: str) -> None:
    said = shell(folder, f"{given}SELECT 'never reached';\n")
    assert (said.code, said.out) == (2, "")
    assert message in said.err
    assert not (folder / "stolen").exists()


def test_a_terminal_has_a_prompt_and_continues_after_errors(folder: Path) -> None:
    with Terminal(folder) as terminal:
        terminal.type("SELECT 1 +\n", "..> ")
        terminal.type("41 AS answer;\n", "spar> ")
        assert re.search(r"│ 42 +│", terminal.seen)
        assert DuckStore(folder / "preferences.duckdb", wait=2).add([[prompt("Written beside an open shell?")]]) == 1
        terminal.type("SELECT nothing;\n", "spar> ")
        assert 'column "nothing"' in terminal.seen
        terminal.type("SELECT 'half\n", "..> ")
        time.sleep(0.5)  # Python hears of Ctrl-C at the next key, when it comes while the prompt is being drawn
        terminal.type("\x03", "spar> ")  # it drops what was begun
        terminal.type("SELECT sleep_ms(60000);\n", "")
        time.sleep(0.5)
        terminal.type("\x03", "spar> ")  # and ends a question
        assert "interrupted" in terminal.seen
        terminal.type("SELECT min(rejected_sc\t) FROM pair_te\t;\n", "spar> ")
        assert "SELECT min(rejected_score) FROM pair_texts" in re.sub(r"\s+", " ", terminal.seen).replace(" )", ")")
        terminal.type(".quit\n", "")
    assert terminal.code == 0
    assert "SELECT nothing;" in (folder / "state" / "sparring" / "sql_history").read_text()


class Terminal:
    """A shell at a terminal of its own."""

    def __enter__(self) -> "Terminal":
        return self

    def __init__(self, folder: Path) -> None:
        self._ours, theirs = pty.openpty()
        env = environment() | {
            "XDG_STATE_HOME": str(folder / "state"),
            "TERM": "dumb",
            "COLUMNS": "200",
            "PAGER": "cat",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", AT_TERMINAL], cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True, preexec_fn=obey_ctrl_c,
        )  # fmt: skip
        os.close(theirs)
        self.seen = ""
        self._read_until("spar> ")

    def type(self, text: str, until: str) -> None:
        self.seen = ""
        os.write(self._ours, text.encode())
        if until:
            self._read_until(until)

    def _read_until(self, end: str) -> None:
        while not self.seen.endswith(end):
            self.seen += os.read(self._ours, 65536).decode(errors="replace")

    def __exit__(self, *_: object) -> None:
        try:
            self.code = self._process.wait(20)
        finally:
            self._process.kill()
            os.close(self._ours)


# The terminal is the one that Ctrl-C is meant for.
AT_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.argv = ["spar", "shell"]
from sparring.cli import main
main()
"""
