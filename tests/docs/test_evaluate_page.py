"""Runs every command on docs/evaluate.md, in a store that already holds the measurements."""

import shlex
from contextlib import chdir
from pathlib import Path

import pytest

from tests.helpers.measured import BETTER, RIVAL, Scripted, measured
from tests.helpers.paths import ROOT
from tests.helpers.spar import project, spar_many

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "evaluate.md"


def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    filled = project(tmp_path)
    (tmp_path / "second.yaml").write_text('kind: rules\nregex: "^a "\n')
    one, two = filled.learned
    script = {filled.initial.id: RIVAL, one.id: BETTER, two.id: RIVAL}
    commands = [shlex.split(line)[1:] for line in PAGE.read_text().splitlines() if line.startswith("spar ")]
    assert len(commands) == 8
    with chdir(tmp_path):
        measured(Scripted(script), "evaluate.n=4")
        measured(Scripted(script), "evaluate.n=16")
        measured(Scripted(script), "evaluate.n=4", candidate=one.id, rival=two.id)
    for command, said in zip(commands, spar_many(*(tuple(c) for c in commands), cwd=tmp_path), strict=True):
        assert said.code == 0, (command, said.err)
        assert said.out
