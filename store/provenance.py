"""Everything that shaped a checkpoint: each update on the way to it, with its prompts, judge, references and run."""

import json
from typing import Any

import duckdb

from sparring.store.db import rows

CHAIN = """WITH RECURSIVE chain AS (  -- from the checkpoint back to the initial one
    SELECT checkpoint_id, parent_id, 0 AS back FROM checkpoints WHERE checkpoint_id = $id
    UNION ALL SELECT k.checkpoint_id, k.parent_id, c.back + 1
    FROM chain c JOIN checkpoints k ON k.checkpoint_id = c.parent_id
),
updated AS (SELECT u.*, c.back FROM chain c JOIN updates u ON u.after_id = c.checkpoint_id),
learned AS (
    SELECT u.update_id, x.pair_id AS id, x.prompt_id FROM updated u JOIN pairs x USING (run_id, round)
    UNION ALL
    SELECT u.update_id, x.pair_id, x.prompt_id FROM updated u JOIN update_pairs p USING (update_id)
        JOIN pairs x USING (pair_id)
    UNION ALL SELECT u.update_id, x.example_id, x.prompt_id FROM updated u JOIN examples x USING (run_id, round)
),
counted AS (
    SELECT update_id, count(DISTINCT id) AS rows_learned, list(DISTINCT prompt_id ORDER BY prompt_id) AS prompt_ids
    FROM learned GROUP BY update_id
)
SELECT u.update_id, u.run_id, r.name AS run, u.round, u.algorithm, u.before_id, u.after_id, u.reference_ids, d.judge,
    coalesce(c.rows_learned, 0) AS rows_learned, coalesce(c.prompt_ids, []) AS prompt_ids,
    r.config_sha256, r.seed, r.versions
FROM updated u JOIN runs r USING (run_id) LEFT JOIN rounds d USING (run_id, round) LEFT JOIN counted c USING (update_id)
ORDER BY u.back DESC"""


def provenance(con: duckdb.DuckDBPyConnection, checkpoint_id: str) -> list[dict[str, Any]]:
    """One row per update, from the first to the one that made the checkpoint. No rows for a model from outside.

    Each row has the run with its config's hash, package versions and git commit (in `versions`), the judge whose
    answers were paired (None if it was not recorded), the references, the number of pairs or examples that the update
    learned from, and the ids of all their prompts.
    """
    updates = rows(con, CHAIN, {"id": checkpoint_id})
    return [row | {"versions": json.loads(row["versions"])} for row in updates]
