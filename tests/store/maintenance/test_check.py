import hashlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path

import duckdb
import pytest

from sparring.loop.errors import DataError, StoreBusy, StoreError
from sparring.store.maintenance.check import all_rules, apply, check, examine
from sparring.store.maintenance.checkpoints import check_checkpoints
from sparring.store.maintenance.parts import check_parts, complete_rest, parts_of
from sparring.store.maintenance.rules import REFERENCES, RULES
from sparring.store.parts import parts_folder
from sparring.store.store import DuckStore
from tests.helpers.records import RUN, checkpoint, filled_store, prompt

# A row that is sound of every table that the filled store leaves empty, so that each reference can be broken.
MORE = f"""
INSERT INTO examples SELECT 'example_1', run_id, round, prompt_id, completion_id, 1, 1, 'group'
    FROM completions WHERE prompt_id = (SELECT prompt_id FROM outcomes WHERE outcome = 'paired' LIMIT 1) LIMIT 1;
INSERT INTO judgements SELECT 'duel_1', 'j', chosen_id, rejected_id, '', '', 0, 1, '', 'answered'
    FROM pairs LIMIT 1;
INSERT INTO judgements SELECT 'canary_1', 'j', 'of a canary', NULL, '', '', 0, 1, '', 'answered';
INSERT INTO judge_calls SELECT 'call_1', 'j', 'duel_1', 1, 'm', '', '', 1, 1, NULL, 1;
INSERT INTO decisions SELECT 'decision_1', run_id, 2, 0, 'reject', checkpoint_id, '', '', now()
    FROM checkpoints LIMIT 1;
INSERT INTO stops VALUES ('stop_1', '{RUN}', 2, 'kl', 1, 1, '', now());
INSERT INTO removals SELECT checkpoint_id, run_id, '', now() FROM checkpoints LIMIT 1;
INSERT INTO update_pairs SELECT 'update_pair_1', update_id, pair_id FROM updates, pairs LIMIT 1;
INSERT INTO sources VALUES ('source_1', '{RUN}', '', '', '', '', 'pairs', 'train', '{{}}', 1, 0, now());
INSERT INTO queries VALUES ('query_1', '{RUN}', 'stop', '', '');
INSERT INTO run_models VALUES ('{RUN}', 'LlamaForCausalLM', '', 'sdpa', 'shared', 'positions', 'vllm', '2026-11-30');
INSERT INTO source_rows SELECT 'source_row_1', 'source_1', 1, prompt_id, [], 'duel_1', pair_id, 'example_1', '{{}}'
    FROM pairs LIMIT 1;
INSERT INTO prompt_tokens SELECT 'prompt_tokens_1', prompt_id, [1] FROM completions LIMIT 1;
UPDATE completions SET prompt_tokens_id = 'prompt_tokens_1' WHERE prompt_id = (SELECT prompt_id FROM prompt_tokens);
UPDATE updates SET reference_ids = [before_id];
UPDATE pairs SET reference_sample_id = chosen_id;
UPDATE completions SET parent_id = completion_id WHERE sample = 1;
"""
OTHER = "(SELECT any_value(completion_id) FROM completions c WHERE c.prompt_id <> pairs.prompt_id)"
PLANTED = {
    "rounds.prompt_ids -> prompts": "UPDATE rounds SET prompt_ids = list_append(prompt_ids, 'gone') WHERE round = 1",
    "updates.reference_ids -> checkpoints": "UPDATE updates SET reference_ids = ['gone']",
    "judgements of two answers -> completions": "UPDATE judgements SET rival_id = 'gone' WHERE judgement_id = 'duel_1'",
    "one outcome for each prompt of a finished round": "DELETE FROM outcomes WHERE outcome = 'tie'",
    "outcomes are of prompts of their round": "UPDATE rounds SET prompt_ids = prompt_ids[2:] WHERE round = 1",
    "a prompt with outcome paired has pairs or examples": "DELETE FROM pairs WHERE round = 2",
    "a prompt with another outcome has none": "UPDATE outcomes SET outcome = 'tie'",
    "no eval prompt is learned from": "UPDATE prompts SET split = 'eval'",
    "pairs.chosen_id is of the pair's prompt": f"UPDATE pairs SET chosen_id = {OTHER}",
    "pairs.rejected_id is of the pair's prompt": f"UPDATE pairs SET rejected_id = {OTHER}",
    "pairs.reference_sample_id is of the pair's prompt": f"UPDATE pairs SET reference_sample_id = {OTHER}",
    "examples.completion_id is of the example's prompt": "UPDATE examples SET completion_id = "
    "(SELECT any_value(completion_id) FROM completions c WHERE c.prompt_id <> examples.prompt_id)",
    "both answers of a judgement are of one prompt": "UPDATE judgements SET rival_id = "
    "(SELECT any_value(c.completion_id) FROM completions c, pairs WHERE c.prompt_id <> pairs.prompt_id) "
    "WHERE judgement_id = 'duel_1'",
    "completions have a log-prob for each token": "UPDATE completions SET logprobs = logprobs[2:]",
    "logprobs have a value for each token": "UPDATE logprobs SET token_logprobs = token_logprobs[2:]",
    "divergences are of all tokens of an answer and not negative": "UPDATE divergences SET value = -0.5",
    "a duel's value is a probability": "UPDATE judgements SET value = 1.5 WHERE judgement_id = 'duel_1'",
    "a judgement is answered where it has a value, else abstained or unreached": "UPDATE judgements "
    "SET status = 'unreached' WHERE judgement_id = 'duel_1'",
    "a run is of a known kind": "UPDATE runs SET kind = 'other'",
    "numbers are finite": "UPDATE evaluations SET value = 'nan'",
    "nothing is left of what was forgotten": "INSERT INTO forgotten SELECT prompt_id, '', '', now(), '{}', [], [], [] "
    "FROM prompts LIMIT 1",
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """A filled store with a row in every table, open: what a test plants, it rolls back."""
    path = tmp_path_factory.mktemp("check") / "a.duckdb"
    with filled_store(path).store.db.write() as con:
        con.execute(MORE)
    with duckdb.connect(str(path)) as con:
        yield con


def broken(con: duckdb.DuckDBPyConnection, names: Collection[str]) -> set[str]:
    """Of the rules with these names, those that do not hold."""
    found = [apply(con, rule) for rule in all_rules(con) if rule.name in names]
    assert len(found) == len(names)
    return {finding.name for finding in found if not finding.ok}


def test_a_sound_store_passes_and_is_counted(sound: duckdb.DuckDBPyConnection) -> None:
    counts, found = examine(sound)
    assert [finding for finding in found if not finding.ok] == []
    assert (counts["completions"], counts["judgements"], counts["sources"]) == (16, 18, 1)
    assert [f.found for f in found if f.name == "verdicts on answers from elsewhere"] == [
        "1, as canaries and benches keep"
    ]


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_defect_is_found_by_name(sound: duckdb.DuckDBPyConnection, name: str) -> None:
    sound.execute("BEGIN")
    try:
        sound.execute(PLANTED[name])
        assert broken(sound, [name]) == {name}
    finally:
        sound.execute("ROLLBACK")


def test_every_reference_that_leads_nowhere_is_found(sound: duckdb.DuckDBPyConnection) -> None:
    names = {f"{r.table}.{r.column} -> {r.target}" for r in REFERENCES}
    sound.execute("BEGIN")
    try:
        for r in REFERENCES:  # key columns too, as of removals
            sound.execute(f"UPDATE {r.table} SET {r.column} = 'gone: ' || {r.column}")
        assert broken(sound, names) == names
    finally:
        sound.execute("ROLLBACK")


def test_a_defect_is_told_with_an_example_and_what_to_do(sound: duckdb.DuckDBPyConnection) -> None:
    sound.execute("BEGIN")
    try:
        sound.execute("UPDATE schema_version SET sha256 = 'x' WHERE version = 9")
        sound.execute("DELETE FROM outcomes WHERE outcome = 'tie'")
        schema, outcome = [finding for finding in examine(sound)[1] if not finding.ok]
    finally:
        sound.execute("ROLLBACK")
    assert (schema.name, schema.found) == ("the schema is that of this version", "migrations 9 differ")
    assert outcome.name == "one outcome for each prompt of a finished round"
    assert outcome.found.startswith("1 rows break it, such as prompt_") and "spar store rebuild" in outcome.remedy


def test_every_rule_has_a_planted_defect() -> None:
    assert {rule.name for rule in RULES} == PLANTED.keys()


def test_a_store_that_is_not_there_is_an_error_and_a_file_that_is_none_is_a_finding(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="if it was lost, and its parts are there: spar store rebuild"):
        check(DuckStore(tmp_path / "none.duckdb").db)
    (tmp_path / "text.duckdb").write_text("no database at all" * 1000)
    counts, (finding,) = check(DuckStore(tmp_path / "text.duckdb").db)
    assert (counts, finding.name, finding.ok) == ({}, "the file can be opened", False)
    assert "spar store rebuild" in finding.remedy


def test_a_busy_store_is_busy_and_not_broken(tmp_path: Path) -> None:
    held = filled_store(tmp_path / "a.duckdb").store.db
    with held.write(), pytest.raises(StoreBusy):
        check(DuckStore(tmp_path / "a.duckdb", wait=0.01).db)


def test_rows_that_only_the_file_or_only_the_parts_have(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "a.duckdb").store
    assert [f for f in check_parts(store.db) if not f.ok or f.remedy] == []
    with store.db.write() as con:  # by hand, beside the log
        con.execute("INSERT INTO judges VALUES ('by hand', 'rules', '{}', [])")
        con.execute("DELETE FROM logprobs WHERE value < -1.5")
        con.execute("DELETE FROM pairs")
        con.execute("UPDATE judgements SET value = 0.25 WHERE value IS NULL")
    found = {f.name: (f.ok, f.found) for f in check_parts(store.db) if not f.ok or f.remedy}
    assert set(found) == {"rows of judges", "rows of logprobs", "rows of pairs", "rows of judgements"}
    assert found["rows of logprobs"] == (False, "2 rows of the parts are missing from the file")
    assert found["rows of pairs"][0] and found["rows of pairs"][1].startswith("2 rows in 1 parts are not in the file")
    assert found["rows of judges"][0] and found["rows of judges"][1].startswith("1 rows of the file are in no part")
    assert complete_rest(store.db) == {"judges": 1, "judgements": 1}
    assert {f.name for f in check_parts(store.db) if not f.ok or f.remedy} == {"rows of logprobs", "rows of pairs"}


def test_a_damaged_part_is_found_by_name(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "a.duckdb").store
    (part,) = parts_of(parts_folder(store.db.path))["completions"]
    part.write_bytes(part.read_bytes()[:-20])
    (finding,) = [f for f in check_parts(store.db) if not f.ok]
    assert finding.name == "every part can be read"
    assert part.name in finding.found and "spar store compact" in finding.remedy


def test_checkpoints_on_disk_are_held_against_their_hash(tmp_path: Path) -> None:
    def sha(folder: Path) -> str:
        if not (folder / "weights").exists():
            raise DataError(f"{folder} holds no model")
        return hashlib.sha256((folder / "weights").read_bytes()).hexdigest()

    store, known = DuckStore(tmp_path / "a.duckdb"), []
    for name in ("good", "changed", "emptied", "lost", "removed"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "weights").write_text(name)
        known.append(type(checkpoint(name))(f"checkpoint_{name}", RUN, str(folder), None, sha(folder)))
    store.add([[prompt("Hello?"), *known]])
    assert check_checkpoints(store.db, sha)[0].ok
    (tmp_path / "changed" / "weights").write_text("other")
    (tmp_path / "emptied" / "weights").unlink()
    for name in ("lost", "removed"):
        (tmp_path / name / "weights").unlink()
        (tmp_path / name).rmdir()
    with store.db.write() as con:
        con.execute("INSERT INTO removals (checkpoint_id, run_id, reason) VALUES ('checkpoint_removed', ?, '')", [RUN])
    (finding,) = check_checkpoints(store.db, sha)
    assert not finding.ok
    said = dict(part.split(": ", 1) for part in finding.found.split("; "))
    assert set(said) == {"checkpoint_changed", "checkpoint_emptied", "checkpoint_lost"}
    assert "other weights" in said["checkpoint_changed"] and said["checkpoint_lost"].endswith("lost is gone")
    assert json.dumps(said)
