import json
import sqlite3
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sparring.store.db import migrations
from sparring.store.store import DuckStore
from tests.helpers.records import Filled, prompt
from tests.helpers.spar import Said, contents, project, python, spar, spar_many

pytestmark = pytest.mark.slow

HEAVY = {"torch", "vllm", "prefect", "transformers"}
COMMANDS = {"run", "resume", "status", "sql", "show", "lineage", "export", "init", "doctor"}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    return project(tmp_path_factory.mktemp("cli"))


def home(filled: Filled) -> Path:
    return filled.store.db.path.parent


def asked(filled: Filled, *commands: tuple[object, ...]) -> list[Said]:
    return spar_many(*commands, cwd=home(filled))


def pair_id(filled: Filled) -> str:
    return str(filled.store.training_rows(filled.first, [])["row_id"][0].as_py())


def test_help_names_the_commands_and_loads_nothing_heavy(tmp_path: Path) -> None:
    said = python("-X", "importtime", "-m", "sparring.cli", "--help", cwd=tmp_path)
    assert said.code == 0
    assert {line.split()[1] for line in said.out.splitlines() if line[:2] in ("│ ", "| ")} >= COMMANDS
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in said.err.splitlines()}
    assert "typer" in loaded  # so the list is one of imports
    assert not loaded & HEAVY


def test_status_for_people_and_programs(filled: Filled) -> None:
    drawn, as_json = asked(filled, ("status",), ("status", "tiny", "--json"))
    assert (drawn.code, drawn.err, as_json.code, as_json.err) == (0, "", 0, "")
    assert drawn.out.startswith(f"{filled.info.id}: 2 of 2 rounds done; complete\n")
    state = json.loads(as_json.out)
    assert (state["run_id"], state["rounds_done"], state["rounds_wanted"]) == (filled.info.id, 2, 2)
    assert (state["complete"], state["missing"], state["last_error"]) == (True, None, None)
    assert [row["win_rate"] for row in state["rounds"]] == [0.5, 0.625, 0.375]


def test_show_prints_any_row(filled: Filled) -> None:
    ids = [pair_id(filled), filled.train[0].id, filled.info.id, filled.first.id, filled.learned[0].id, "step_1_0"]
    shown = [json.loads(said.out) for said in asked(filled, *(("show", id) for id in ids))]
    assert [row["table"] for row in shown] == ["pairs", "prompts", "runs", "rounds", "checkpoints", "update_steps"]
    assert (shown[0]["margin"], shown[0]["round"]) == (1.0, 1)


def test_lineage_walks_both_ways(filled: Filled) -> None:
    pair = pair_id(filled)
    drawn, as_json, of_prompt = asked(
        filled, ("lineage", pair), ("lineage", pair, "--json"), ("lineage", filled.train[0].id, "--json")
    )
    walked = json.loads(as_json.out)
    causes: list[dict[str, Any]] = walked["causes"]
    assert [(c["kind"], c["depth"]) for c in causes if c["depth"] == 1] == [("completion", 1)] * 2
    assert {(c["id"], c["depth"]) for c in causes if c["depth"] == 2} == {
        (filled.train[0].id, 2),
        (filled.initial.id, 2),
    }
    effects = {(e["kind"], e["id"], e["depth"]) for e in walked["effects"]}
    assert {("update", "update_1", 1), ("checkpoint", filled.learned[0].id, 2)} <= effects
    assert f"{pair} caused by:\n  completion " in drawn.out
    assert (
        f"{pair} led to:\n  update update_1  round 1: dpo on 1 rows\n    checkpoint {filled.learned[0].id} (after)"
        in drawn.out
    )
    assert json.loads(of_prompt.out)["causes"] == []
    assert ("pair", pair) in {(e["kind"], e["id"]) for e in json.loads(of_prompt.out)["effects"]}


def test_bad_input_has_its_code_and_a_remedy(filled: Filled, tmp_path: Path) -> None:
    newer, other = tmp_path / "newer.duckdb", tmp_path / "other.duckdb"
    DuckStore(newer).add([[prompt("Hello?")]])
    with duckdb.connect(str(newer)) as con:
        con.execute("INSERT INTO schema_version (version, name, sha256) VALUES (99, '0099_later', 'x')")
    sqlite3.connect(other).execute("CREATE TABLE other (a)").connection.close()
    cases: list[tuple[tuple[object, ...], int, str]] = [
        (("status", "--store", tmp_path / "none.duckdb"), 1, "there is no store at"),
        (("sql", "SELECT 1", "--store", tmp_path / "none.duckdb"), 1, "spar run CONFIG"),
        (("status", "none"), 1, "has no run none; start one with: spar run CONFIG"),
        (("resume", "none"), 1, "has no run none"),
        (("show", "pair_0"), 1, "has no row 'pair_0'; ids look like"),
        (("lineage", "pair_0"), 1, "no row has the id 'pair_0'"),
        (
            ("status", "--store", newer),
            2,
            f"schema version 99, this sparring knows up to {migrations()[-1][0]}; install",
        ),
        (("status", "--store", other), 1, "cannot be opened as a DuckDB file"),
        (("run", "none.yaml"), 2, "there is no config file none.yaml; write one with: spar init"),
        (("run", "train.jsonl"), 2, "train.jsonl"),
        (("sql", "SELECT 1", "--format", "xml"), 2, "xml"),
        (("status", "--no-such"), 2, "--no-such"),
        (("rum",), 2, "rum"),
    ]
    before = contents(home(filled))
    for (arguments, code, message), said in zip(cases, asked(filled, *(c[0] for c in cases)), strict=True):
        assert (arguments, said.code, said.out) == (arguments, code, "")
        assert message in said.err
        assert "Traceback" not in said.err
        assert len(said.err.splitlines()) < 25  # a screen
    assert contents(home(filled)) == before


def test_an_error_of_a_whole_process_is_one_message(filled: Filled, tmp_path: Path) -> None:
    said = spar("show", "pair_0", cwd=home(filled))
    assert (said.code, said.out, said.err.count("\n")) == (1, "", 1)


def test_doctor_for_programs(tmp_path: Path) -> None:
    said = spar("doctor", "--json", cwd=tmp_path)
    findings = {finding["name"]: finding for finding in json.loads(said.out)}
    assert {"python", "torch", "duckdb", "vllm", "disk"} <= findings.keys()
    assert all(finding["ok"] or finding["remedy"] for finding in findings.values())
    assert said.code == (0 if all(finding["ok"] for finding in findings.values()) else 4)
