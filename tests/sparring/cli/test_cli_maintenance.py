"""`spar store ...`, and what a run says that lost a prompt."""

import json
from pathlib import Path

import duckdb
import pytest

from sparring.flows.run.retention import prune_by_hand, removable
from sparring.flows.supervise.run_lock import lock_run
from sparring.loop.errors import StoreBusy
from sparring.loop.types import Checkpoint
from tests.helpers.records import evaluations, filled_store, round_of, update
from tests.helpers.spar import project, spar_many

pytestmark = pytest.mark.slow


def test_care_from_the_command_line(tmp_path: Path) -> None:
    filled = project(tmp_path)
    gone = filled.train[0].id
    run = tmp_path / "runs" / filled.info.id
    run.mkdir(parents=True)
    for name in ("report.html", "error.txt", "update_3.safetensors", "config.yaml"):
        (run / name).write_text("a robin")
    changed, damaged = tmp_path / "changed", tmp_path / "damaged"
    for folder in (changed, damaged):
        folder.mkdir()
        project(folder)
    lines = (changed / "train.jsonl").read_text().splitlines(keepends=True)
    (changed / "train.jsonl").write_text("".join(lines[1:]))
    file = damaged / "preferences.duckdb"
    file.write_bytes(file.read_bytes()[:12288] + b"\xa5" * 1_000_000)
    said = spar_many(
        ("store", "check"),
        ("store", "check", "--files", "--json"),
        ("store", "migrate"),
        ("store", "compact"),
        ("store", "backup", "kept.duckdb"),
        ("store", "backup", "kept.duckdb"),
        ("store", "rebuild", "--json"),
        ("store", "forget", gone),
        ("store", "forget", "--text", "a robin", "--reason", "asked", "--yes", "--json"),
        ("store", "forget"),
        ("store", "forget", "--text", ""),
        ("store", "forget", "--text", "a robin", "--yes"),
        ("store", "check"),
        ("run", "loop.yaml"),
        ("status", "--json"),
        ("store", "check", "--store", "none.duckdb"),
        (changed, "store", "forget", gone, "--yes"),
        (changed, "resume", "--rounds", "3", "--no-prefect"),
        (damaged, "status"),
        (damaged, "store", "check"),
        (damaged, "store", "rebuild"),
        (damaged, "status"),
        cwd=tmp_path,
    )
    check, files, migrate, compact, backup, again, rebuild, unasked, forget, unsaid, empty, none, after, *rest = said
    assert check.code == 0 and check.err.endswith("checks hold\n")
    assert "16 completions" in check.out and "to do" not in check.out
    found = json.loads(files.out)
    (problem,) = [f for f in found["findings"] if not f["ok"]]  # its checkpoints were never on disk
    assert (files.code, found["ok"], found["tables"]["pairs"]) == (1, False, 2)
    assert problem["name"] == "checkpoints are on disk as they were" and "/nowhere/one is gone" in problem["found"]
    assert migrate.code == 0 and "which is the newest" in migrate.err
    assert compact.code == 0 and "parts ->" in compact.err
    assert backup.code == 0 and (tmp_path / "kept.duckdb").exists()
    assert again.code == 1 and "does not overwrite" in again.err
    assert json.loads(rebuild.out)["rows"]["completions"] == 16
    assert unasked.code == 2 and "give --yes" in unasked.err and "weights do not forget" in unasked.err
    done = json.loads(forget.out)
    assert (done["prompt_ids"], done["removed"]["completions"]) == ([gone], 4)
    assert {Path(f).name for f in done["files"]} == {"report.html", "error.txt", "update_3.safetensors"}
    assert {f.name for f in run.iterdir()} == {"config.yaml", "run.lock"}
    assert not list(tmp_path.glob("preferences.damaged*"))
    assert unsaid.code == 2 and "PROMPT_ID or --text TEXT" in unsaid.err
    assert empty.code == 2 and "--text is empty" in empty.err
    assert none.code == 1 and "contains that text" in none.err
    assert after.code == 0 and "1 forgotten" in after.out
    going_on, status, lost, forgot, resumed, broken, found_out, repaired, well = rest
    assert going_on.code == 0 and "is complete: 2 of 2 rounds" in going_on.err
    assert [r["prompts"] for r in json.loads(status.out)["rounds"]] == [0, 2, 2]
    assert lost.code == 1 and "spar store rebuild" in lost.err
    # a run whose prompt was taken out of its file is another one
    assert forgot.code == 0 and "with policy.model: run:NAME" in forgot.err
    assert resumed.code == 2 and "was started with another config or other prompts" in resumed.err
    assert broken.code == 1 and "spar store rebuild" in broken.err
    assert found_out.code == 1 and "PROBLEM: " in found_out.out and "spar store rebuild" in found_out.out
    assert repaired.code == 0 and "completions: 16 rows" in repaired.out and "is kept as" in repaired.err
    assert well.code == 0


def test_old_checkpoints_are_removed_by_hand_and_others_beginnings_are_not(tmp_path: Path) -> None:
    filled = filled_store(tmp_path / "a.duckdb")
    store, run, folder = filled.store, filled.info.id, tmp_path / "runs" / filled.info.id
    made = [
        Checkpoint(f"checkpoint_{k}", run, str(folder / f"round-{k}"), "checkpoint_initial", f"w{k}")
        for k in range(3, 7)
    ]
    before = filled.learned[0]
    for k, after in enumerate(made, start=3):
        (folder / f"round-{k}").mkdir(parents=True)
        (folder / f"round-{k}" / "model.safetensors").write_bytes(b"0" * 1000)
        rnd = round_of(k, before, filled.initial, ())
        store.add([[after, rnd, update(rnd, after, 0), *evaluations(rnd, after, {"win_rate": 0.5, "accepted": 1.0})]])
        before = after
    other = Checkpoint("checkpoint_b", "another", made[1].path, None, made[1].weights_sha256)
    store.add([[other]])  # another run begins from round 4
    # needed: 6, the policy, and 5, before it; the best, of round 6 among equals; kept: the newest; another's: 4
    assert [k.id for k in removable(store, run, 1)] == ["checkpoint_3"]
    assert removable(store, run, 4) == []
    assert prune_by_hand(store, run, 1) == [folder / "round-3"]
    assert sorted(path.name for path in folder.glob("round*")) == ["round-4", "round-5", "round-6"]
    with duckdb.connect(str(store.db.path), read_only=True) as con:
        assert con.execute("SELECT checkpoint_id, reason FROM removals").fetchall() == [
            ("checkpoint_3", "spar store prune --keep 1")
        ]
    assert prune_by_hand(store, run, 1) == []


def test_a_run_that_is_played_is_not_pruned(tmp_path: Path) -> None:
    filled = filled_store(tmp_path / "a.duckdb")
    lock = lock_run(tmp_path / "runs" / filled.info.id)
    try:
        with pytest.raises(StoreBusy, match="another process is playing"):
            prune_by_hand(filled.store, filled.info.id, 1)
    finally:
        lock.release()
