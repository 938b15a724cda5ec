"""The store as the loop sees it: which rows are missing, which are there, and adding rows."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from sparring.loop.types import (
    Answers,
    Checkpoint,
    Completion,
    Evaluation,
    Experience,
    Group,
    Judgement,
    Prompt,
    Record,
    Round,
    RunInfo,
)
from sparring.store.db import Database, named, rows, table
from sparring.store.history import first, rounds_settled
from sparring.store.maintenance.tombstones import refuse_forgotten
from sparring.store.parts import parts_folder, write_parts
from sparring.store.records import ROLES, to_arrow, to_prompt, to_record
from sparring.store.training_rows import training_rows

# A policy answers the held-out prompts once, whichever round asks. The train prompts are answered once per round, by
# every source that the config names.
THIS = """c.run_id = $run AND CASE p.split
    WHEN 'eval' THEN c.policy_id = $policy AND (c.origin = 'policy' OR c.policy_id = '')  -- '': no policy wrote it
    ELSE c.round = $round END"""
# What one source has written: the policy, a reference, or a dataset, whose answers no policy wrote.
BY_SOURCE = """c.run_id = $run AND c.origin = $origin AND ($origin IN ('dataset', 'human') OR c.policy_id = $policy)
    AND (c.round = $round OR p.split = 'eval')"""

UPDATED = "SELECT k.* FROM updates u JOIN checkpoints k ON k.checkpoint_id = u.after_id WHERE u.run_id = ?"


class DuckStore:
    """See loop.parts.Store. Every method is one short, locked transaction."""

    def __init__(self, path: str | Path, *, wait: float = 60.0) -> None:
        self.db = Database(path, wait=wait)

    def add(self, chunks: Iterable[Sequence[Record]]) -> int:
        return sum(self.ingest(dict(map(to_arrow, _by_kind(chunk)))) for chunk in chunks if chunk)

    def ingest(self, tables: Mapping[str, pa.Table]) -> int:
        """Add Arrow tables, by name, in one transaction. Returns the number of new rows.

        Missing columns take their defaults. A row whose key exists is left as it is, as `add` does.
        """
        with self.db.write() as con:
            added = {name: _insert(con, name, rows) for name, rows in tables.items()}
            write_parts(parts_folder(self.db.path), added)  # before the commit: every committed row is in a part
        return sum(rows.num_rows for rows in added.values())

    def unsampled(self, rnd: Round) -> list[Prompt]:
        sql = f"""SELECT p.* FROM wanted w JOIN prompts p USING (prompt_id)
            WHERE NOT EXISTS (FROM completions c WHERE c.prompt_id = p.prompt_id AND {BY_SOURCE})
            AND NOT EXISTS (FROM outcomes o WHERE o.prompt_id = p.prompt_id AND o.run_id = $run
                            AND o.round = $round AND o.outcome = 'failed')
            ORDER BY w.position"""
        return [to_prompt(row) for row in self._rows(rnd, sql)]

    def experience(self, rnd: Round | Answers, judge: str) -> Experience:
        judged = self._rows(
            rnd,
            f"""SELECT j.* FROM wanted w JOIN prompts p USING (prompt_id) JOIN completions c USING (prompt_id)
            JOIN judgements j USING (completion_id) WHERE {THIS} AND j.judge = $judge
            ORDER BY w.position, c.origin, c.policy_id, c.sample, j.judgement_id""",
            judge=judge,
        )
        return Experience(tuple(self._groups(rnd)), tuple(to_record(Judgement, row) for row in judged))

    def knows_judge(self, judge: str) -> bool:
        """Whether the store has a verdict of this judge."""
        return bool(self.db.rows("SELECT 1 FROM judgements WHERE judge = ? AND value IS NOT NULL LIMIT 1", [judge]))

    def judged(self, judge: str, completion_ids: Sequence[str]) -> list[Judgement]:
        """All judgements of these completions by one judge."""
        with self.db.read() as con:
            con.register("wanted", pa.table({"completion_id": pa.array(completion_ids, pa.string())}))
            sql = "SELECT j.* FROM judgements j SEMI JOIN wanted USING (completion_id) WHERE judge = ?"
            return [to_record(Judgement, row) for row in rows(con, sql, [judge])]

    def training_rows(self, rnd: Round, references: Sequence[Checkpoint]) -> pa.Table:
        """What the update of a round learns from: see store.training_rows."""
        return training_rows(self.db, rnd, references)

    def answers(self, rnd: Round) -> pa.Table:
        """The first answer of `rnd.policy` to each prompt; `divergence` is that from the initial policy, or null."""
        return self._table(
            rnd,
            f"""SELECT p.messages, [c.completion_id] AS completion_ids, [c.token_ids] AS token_ids,
                t.token_ids AS prompt_token_ids, d.value AS divergence
            FROM wanted w JOIN prompts p USING (prompt_id) JOIN completions c USING (prompt_id)
            LEFT JOIN prompt_tokens t USING (prompt_tokens_id)
            LEFT JOIN divergences d ON d.completion_id = c.completion_id
                AND d.weights_sha256 = $weights AND d.reference_sha256 = $reference
            WHERE {THIS} AND c.sample = 0 ORDER BY w.position""",
            weights=rnd.policy.weights_sha256,
            reference=rnd.initial.weights_sha256,
        )

    def updated(self, rnd: Round) -> Checkpoint | None:
        return first(self.db, Checkpoint, f"{UPDATED} AND u.round = ?", [rnd.run, rnd.index])

    def evaluated(self, rnd: Round) -> list[Evaluation]:
        sql = "SELECT * FROM evaluations WHERE run_id = ? AND round = ? AND candidate_id = ? ORDER BY metric"
        return [to_record(Evaluation, row) for row in self.db.rows(sql, [rnd.run, rnd.index, rnd.policy.id])]

    def run(self, name: str | None = None) -> RunInfo | None:
        """The run with this id or name, by default the loop that was started last."""
        # without created_at: pyarrow would load pandas to make a timestamp a Python value
        sql = """SELECT * EXCLUDE (created_at) FROM runs
            WHERE coalesce($name IN (run_id, name), kind = 'loop') ORDER BY created_at DESC LIMIT 1"""
        return first(self.db, RunInfo, sql, {"name": name})

    def checkpoint_of(self, run: str) -> Checkpoint | None:
        """The checkpoint that the one update of a reward model's training made."""
        return first(self.db, Checkpoint, UPDATED, [run]) if self.db.path.exists() else None

    def labelled(self, run: str) -> pa.Table:
        """The pairs of a run as texts, with their pair_id, in an order that does not depend on the run's name."""
        sql = """SELECT x.pair_id, p.messages, c.text AS chosen, r.text AS rejected, x.p_chosen, x.margin, x.weight
            FROM pairs x JOIN prompts p USING (prompt_id)
            JOIN completions c ON c.completion_id = x.chosen_id JOIN completions r ON r.completion_id = x.rejected_id
            WHERE x.run_id = ? AND p.split = 'train' ORDER BY x.round, x.prompt_id, c.sample, r.sample"""
        with self.db.read() as con:
            return table(con, sql, [run])

    def complete(self, run: str, rounds: int) -> bool:
        """Whether every round up to `rounds` has been evaluated, or ended by a decision."""
        return rounds_settled(self.db, run) >= rounds

    def last_round(self, run: str) -> Round | None:
        return self._round(run, "SELECT * FROM rounds WHERE run_id = ? ORDER BY round DESC LIMIT 1", [run])

    def begun(self, rnd: Round) -> Round | None:
        """The round as it was stored when it began, or None."""
        return self._round(rnd.run, "SELECT * FROM rounds WHERE round_id = ?", [rnd.id])

    def _round(self, run: str, sql: str, parameters: list[str]) -> Round | None:
        with self.db.read() as con:
            record = next(iter(rows(con, sql, parameters)), None)
            if record is None:
                return None
            ids = [record[f"{role}_id"] for role in ROLES]
            named = rows(con, "SELECT * FROM checkpoints WHERE list_contains(?, checkpoint_id)", [ids])
        checkpoints = {row["checkpoint_id"]: to_record(Checkpoint, row) for row in named}
        policy, opponent, reference, initial = (checkpoints[id] for id in ids)
        prompt_ids, judge = tuple(record["prompt_ids"]), record["judge"]
        return Round(run, record["round"], policy, opponent, reference, initial, prompt_ids, judge=judge)

    def _groups(self, rnd: Round | Answers) -> list[Group]:
        records = self._rows(
            rnd,
            f"""SELECT c.*, p.messages, p.split, p.source, p.meta FROM wanted w JOIN prompts p USING (prompt_id)
            JOIN completions c USING (prompt_id) WHERE {THIS}
            ORDER BY w.position, c.origin, c.policy_id, c.sample""",
        )
        groups = (list(g) for _, g in groupby(records, key=lambda row: row["prompt_id"]))
        return [Group(to_prompt(g[0]), tuple(to_record(Completion, row) for row in g)) for g in groups]

    def _rows(self, rnd: Round | Answers, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        return list(self._table(rnd, sql, **parameters).to_pylist())

    def _table(self, rnd: Round | Answers, sql: str, **parameters: Any) -> pa.Table:
        """The rows of a query about the prompts of a round. In it, `wanted` has the prompts' ids in order."""
        ids = pa.array(rnd.prompt_ids, pa.string())
        with self.db.read() as con:
            con.register("wanted", pa.table({"prompt_id": ids, "position": pa.array(range(len(ids)), pa.int32())}))
            values = {"run": rnd.run, "policy": rnd.policy_id, "round": rnd.index, "origin": rnd.origin, **parameters}
            return table(con, sql, named(sql, values))


def _by_kind(chunk: Sequence[Record]) -> list[list[Record]]:
    kinds = defaultdict(list)
    for record in chunk:
        kinds[type(record)].append(record)
    return list(kinds.values())


def _insert(con: duckdb.DuckDBPyConnection, name: str, incoming: pa.Table) -> pa.Table:
    """The rows that were added or filled, as the store has them now."""
    columns = ", ".join(f'"{c}"' for c in incoming.column_names)
    con.register("incoming", incoming)
    if "prompt_id" in incoming.column_names:
        refuse_forgotten(con, "incoming")
    # Of two rows for one judgement DuckDB keeps the first, so the one with a value comes first.
    rows = "incoming ORDER BY value NULLS LAST" if name == "judgements" else "incoming"
    sql = f'INSERT INTO "{name}" ({columns}) SELECT * FROM {rows} ON CONFLICT {on_conflict(name)} RETURNING *'
    added = con.sql(sql).to_arrow_table()
    con.unregister("incoming")
    return added


def on_conflict(name: str) -> str:
    """The SQL for a row whose key exists: leave it, but let an answer fill a judgement that has none."""
    if name != "judgements":
        return "DO NOTHING"
    return (
        "(judgement_id) DO UPDATE SET value = excluded.value, rationale = excluded.rationale, status = excluded.status "
        "WHERE judgements.value IS NULL AND excluded.value IS NOT NULL"
    )
