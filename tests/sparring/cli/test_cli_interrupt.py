"""Ctrl-C in `spar run`: the message says what is kept and how to resume, on a terminal and in a pipe."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sparring.store.db import rows
from sparring.store.store import DuckStore
from tests.helpers.spar import environment, obey_ctrl_c
from tests.helpers.sweeps import CONFIG, write

pytestmark = [pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is POSIX's"), pytest.mark.slow]


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    os.symlink(tiny, tmp_path / "model")
    write(tmp_path, config=CONFIG.replace("rounds: 1", "rounds: 1000"))
    return tmp_path


def start(folder: Path, stderr: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "sparring.cli", "run", "loop.yaml", "--no-prefect"]
    env = environment() | {"TERM": "xterm-256color"}
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=stderr, preexec_fn=obey_ctrl_c)


def interrupt(process: "subprocess.Popen[bytes]", stream: int, after: bytes) -> str:
    """Send SIGINT once `after` is written to stderr, whose other end is `stream`; returns all that is written."""
    text, sent = b"", False
    while data := read(stream):
        text += data
        if after in text and not sent:
            process.send_signal(signal.SIGINT)
            sent = True
    assert process.wait(60) == 130
    return text.decode()


def read(stream: int) -> bytes:
    try:
        return os.read(stream, 65536)
    except OSError:  # how Linux reports that the other end of a terminal is closed
        return b""


@pytest.mark.timeout(240)
def test_ctrl_c_in_a_pipe_keeps_what_was_measured_and_names_the_run(folder: Path) -> None:
    process = start(folder, subprocess.PIPE)
    assert process.stderr is not None
    text = interrupt(process, process.stderr.fileno(), b"round 0: initial policy")
    store = DuckStore(folder / "preferences.duckdb")
    info = store.run(None)
    assert info is not None
    last = text.splitlines()[-1]
    assert "interrupted" in last and "kept" in last and last.endswith(f"spar resume {info.id}")
    assert "Traceback" not in text
    with store.db.read() as con:
        kept = rows(con, "SELECT count(*) AS n FROM evaluations WHERE round = 0 AND metric = 'accepted'")
    assert kept[0]["n"] == 1


@pytest.mark.timeout(240)
def test_ctrl_c_on_a_terminal_prints_the_same_below_the_progress(folder: Path) -> None:
    ours, theirs = pty.openpty()
    process = start(folder, theirs)
    os.close(theirs)
    text = interrupt(process, ours, b"starting")
    os.close(ours)
    assert "interrupted" in text and "spar resume tiny-" in text
    assert "Traceback" not in text
