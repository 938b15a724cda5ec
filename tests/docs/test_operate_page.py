"""The commands of docs/operate.md, in its order, on a run of three rounds."""

import re
import shlex
from pathlib import Path

import pytest

from sparring.flows.run.rounds import operate
from tests.helpers.paths import ROOT
from tests.helpers.scripted_loop import make_loop
from tests.helpers.spar import spar_many

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs/operate.md").read_text()


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    lines = [line for kind, block in blocks if not kind for line in block.splitlines() if line.startswith("spar ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    operate(make_loop(tmp_path), 3)
    asked = [[word.replace("my-loop", "night") for word in words] for words in commands()]
    kept = [words for words in asked if words[0] != "resume"]  # which needs a model
    assert {words[0] for words in kept} == {"status", "approve", "reject", "rollback", "sql"}
    said = spar_many(*map(tuple, kept), cwd=tmp_path)
    assert [(words, told.err) for words, told in zip(kept, said, strict=True) if told.code != 0] == []
    decisions = said[-1].out
    assert all(kind in decisions for kind in ("approve", "reject", "rollback")) and "round 2 went wrong" in decisions
