"""The rows that belong to prompts, recognized by column names: a table has their prompt_id, completion_id, ..."""

import json
from collections.abc import Iterable, Mapping, Sequence

import duckdb
import pyarrow as pa

from sparring.store.catalog import columns_of
from sparring.store.db import Database

# The ids that a column holds. A parent_id or rival_id may also be a checkpoint's, which never equals a completion's.
HOLDS = {
    "prompt_id": "prompts",
    "completion_id": "completions",
    "rival_id": "completions",
    "parent_id": "completions",
    "chosen_id": "completions",
    "rejected_id": "completions",
    "reference_sample_id": "completions",
    "judgement_id": "judgements",
    "pair_id": "pairs",
    "example_id": "examples",
}
KINDS = ("prompts", "completions", "judgements", "pairs", "examples")  # each is found by those before it
KEPT = ("forgotten", "schema_version")
UNLISTED = "list_filter(prompt_ids, lambda id: NOT list_contains(gone_ids, id))"
GONE_IDS = "(SELECT coalesce(list(g.id), []) AS gone_ids FROM gone_prompts g)"
LISTED = "list_has_any(prompt_ids, (SELECT coalesce(list(g.id), []) FROM gone_prompts g))"

UPDATES = """
    SELECT u.update_id FROM updates u JOIN (
        SELECT run_id, round FROM pairs SEMI JOIN gone_pairs ON id = pair_id
        UNION SELECT run_id, round FROM examples SEMI JOIN gone_examples ON id = example_id) USING (run_id, round)
    UNION SELECT update_id FROM update_pairs SEMI JOIN gone_pairs ON id = pair_id
"""
CHECKPOINTS = f"""
    WITH RECURSIVE leads AS (
        SELECT before_id AS cause_id, after_id AS checkpoint_id FROM updates
        UNION ALL SELECT parent_id, checkpoint_id FROM checkpoints
        UNION ALL SELECT a.checkpoint_id, b.checkpoint_id FROM checkpoints a JOIN checkpoints b USING (weights_sha256)
    ),
    learned AS (
        SELECT after_id AS checkpoint_id FROM updates SEMI JOIN ({UPDATES}) USING (update_id)
        UNION
        SELECT l.checkpoint_id FROM learned k JOIN leads l ON l.cause_id = k.checkpoint_id
    )
    FROM learned
"""
RUNS = f"""
    SELECT run_id FROM completions SEMI JOIN gone_completions ON id = completion_id
    UNION SELECT run_id FROM outcomes SEMI JOIN gone_prompts ON id = prompt_id
    UNION SELECT run_id FROM pairs SEMI JOIN gone_pairs ON id = pair_id
    UNION SELECT run_id FROM rounds WHERE {LISTED}
    UNION SELECT run_id FROM updates SEMI JOIN ({UPDATES}) USING (update_id)
    UNION SELECT unnest(run_ids) FROM forgotten SEMI JOIN named USING (prompt_id)
"""
LEARNED = (RUNS, UPDATES, CHECKPOINTS)  # the ids of what learned from the prompts
HOLDING = """
    SELECT prompt_id FROM prompts WHERE contains(meta::VARCHAR, $escaped) OR contains(messages::VARCHAR, $escaped)
        OR contains(array_to_string(messages ->> '$[*].content', chr(10)), $text)
    UNION SELECT prompt_id FROM completions WHERE contains("text", $text) OR contains(thought, $text)
    UNION SELECT c.prompt_id FROM judgements j JOIN completions c USING (completion_id)
        WHERE contains(j.rationale, $text)
    UNION SELECT c.prompt_id FROM judge_calls l JOIN judgements j USING (judgement_id)
        JOIN completions c USING (completion_id)
        WHERE contains(l.reply, $text) OR contains(l.reply, $escaped) OR contains(l.error, $text)
    ORDER BY prompt_id
"""


def holding(db: Database, text: str) -> list[str]:
    """The prompts that contain `text`, or whose answers, rationales or judges' replies do."""
    escaped = json.dumps(text, ensure_ascii=False)[1:-1]
    return [row["prompt_id"] for row in db.rows(HOLDING, {"text": text, "escaped": escaped})]


def mark(con: duckdb.DuckDBPyConnection, prompt_ids: Sequence[str], sources: Mapping[str, str]) -> None:
    """Create tables gone_<kind> with the ids of rows that belong to the prompts. `sources`: SQL for a table's rows."""
    con.register("asked", pa.table({"id": pa.array(prompt_ids, pa.string())}))
    con.execute("CREATE OR REPLACE TEMP TABLE gone_prompts AS FROM asked")
    con.unregister("asked")
    for place, kind in enumerate(KINDS[1:], start=1):
        con.execute(f"CREATE OR REPLACE TEMP TABLE gone_{kind} (id VARCHAR)")
        if kind in sources:
            theirs = condition(columns_of(con, sources[kind]), KINDS[:place])
            con.execute(f"INSERT INTO gone_{kind} SELECT DISTINCT {kind[:-1]}_id FROM {sources[kind]} WHERE {theirs}")


def conditions(con: duckdb.DuckDBPyConnection, sources: Mapping[str, str]) -> dict[str, str]:
    """The SQL condition of each table's rows to delete. Tables by which others are found come last."""
    by_table = {
        name: where
        for name, source in sources.items()
        if name not in KEPT and (where := condition(columns_of(con, source)))
    }
    return dict(sorted(by_table.items(), key=lambda item: -KINDS.index(item[0]) if item[0] in KINDS else -len(KINDS)))


def condition(columns: Iterable[str], kinds: Sequence[str] = KINDS) -> str:
    """The SQL condition of rows that belong to the prompts. Empty if no column shows it."""
    each = [f"{column} IN (FROM gone_{HOLDS[column]})" for column in columns if HOLDS.get(column) in kinds]
    return " OR ".join(each)
