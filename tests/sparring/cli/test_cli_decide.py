"""`spar approve`, `reject` and `rollback`, and what `spar status` says of them."""

import json
from pathlib import Path

import pytest

from tests.helpers.spar import project, spar_many

pytestmark = pytest.mark.slow


def test_decisions_from_the_command_line(tmp_path: Path) -> None:
    filled = project(tmp_path)
    run = filled.info.id
    said = spar_many(
        ("reject", "tiny", "--reason", "it rambles"),
        ("status", "--json"),
        ("approve",),
        ("status",),
        ("rollback", run, "--to", "0"),  # its weights were never on disk
        ("rollback", run, "--to", "7"),
        ("rollback", run),
        ("approve", "nobody"),
        ("sql", "SELECT kind, round, number FROM decisions ORDER BY number", "--format", "csv"),
        cwd=tmp_path,
    )
    reject, status, approve, told, lost, unknown, unsaid, nobody, stored = said
    assert reject.code == approve.code == 0
    assert reject.out.startswith("decision_")
    assert f"{run} continues from" in reject.err and f"spar resume {run} --rounds 3" in reject.err
    state = json.loads(status.out)
    assert [(d["kind"], d["round"], d["reason"]) for d in state["decisions"]] == [("reject", 2, "it rambles")]
    assert state["complete"] and state["waiting"] is None and state["live"] is None
    assert "after round 2: reject by" in told.out and "after round 2: approve by" in told.out
    assert lost.code == 2 and "are not in /nowhere" in lost.err
    assert unknown.code == 2 and "has no finished round 7" in unknown.err
    assert unsaid.code == 2 and "--to" in unsaid.err
    assert nobody.code == 1 and "has no loop nobody" in nobody.err
    assert stored.out == 'kind,round,number\n"reject",2,0\n"approve",2,1\n'
