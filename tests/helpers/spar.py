"""The command line as a person has it: another process, in a folder with a config, prompts, and a store."""

import json
import os
import signal
import subprocess
import sys
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

from sparring.flows.compose.build import describe, read_all_prompts
from sparring.flows.config import read_config
from tests.helpers.paths import ROOT
from tests.helpers.records import Filled, filled_store

CONFIG = """\
name: tiny
rounds: 2
policy: {model: ./no-model-is-needed}
prompts: {train: train.jsonl, eval: eval.jsonl}
learn: {lr: 1.0e-5, beta: 0.1}
"""
TRAIN = [{"prompt": "Name a bird.", "max_words": 3}, {"prompt": "Say yes.", "choice": ["yes"]}, {"prompt": "Go on."}]
EVAL = [{"prompt": "Name a fish.", "max_words": 3}, {"prompt": "Say no.", "choice": ["no"]}]

# Many commands in one process: starting Python, and loading torch, takes longer than most of them.
MANY = """
import contextlib, io, json, os, sys
from sparring.cli import main
for folder, arguments in json.load(sys.stdin):
    os.chdir(folder)
    sys.argv = ["spar", *arguments]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code
    print(json.dumps([code or 0, out.getvalue(), err.getvalue()]))
"""


@dataclass(frozen=True)
class Said:
    """What a command returned, and what it wrote to stdout and stderr."""

    code: int
    out: str
    err: str


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SPARRING_")}
    return kept | {"PYTHONPATH": str(ROOT)}


def obey_ctrl_c() -> None:
    """A `preexec_fn`: the child obeys SIGINT also where this process ignores it, as under many CI systems."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def python(*arguments: object, cwd: Path, given: str = "") -> Said:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=cwd, env=environment(), input=given, capture_output=True, text=True, timeout=120, check=False
    )
    return Said(done.returncode, done.stdout, done.stderr)


def spar(*arguments: object, cwd: Path) -> Said:
    return python("-m", "sparring.cli", *arguments, cwd=cwd)


def spar_many(*commands: tuple[object, ...], cwd: Path) -> list[Said]:
    """Each command by the same `main`, one after the other, in one process. A Path in front is the folder to be in."""
    given = [
        (str(first), [str(argument) for argument in rest])
        if isinstance(first, Path)
        else (str(cwd), [first, *map(str, rest)])
        for first, *rest in commands
    ]
    done = python("-c", MANY, cwd=cwd, given=json.dumps(given))
    return [Said(*json.loads(line)) for line in done.out.splitlines()]


def project(folder: Path) -> Filled:
    """Prompts, a config, and a store in which its two rounds are complete."""
    (folder / "loop.yaml").write_text(CONFIG)
    for name, rows in (("train.jsonl", TRAIN), ("eval.jsonl", EVAL)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    with chdir(folder):
        config = read_config("loop.yaml")
        train, held_out = read_all_prompts(config)
        return filled_store(folder / config.store, describe(config, train, held_out), train, held_out)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but the lock, to see that nothing was changed or added."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
