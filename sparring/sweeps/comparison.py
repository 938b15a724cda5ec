"""The results of a sweep's runs from the store: the current policy of each run, as it was measured."""

from collections.abc import Sequence
from typing import Any

from sparring.store.db import rows
from sparring.store.store import DuckStore

# `round` is the round whose update made the policy; 0 when no candidate was accepted.
COLUMNS = (
    "point", "run_id", "rounds", "wanted", "round",
    "pass_rate", "pass_low", "pass_high", "win_rate", "win_low", "win_high", "kl", "kl_low", "kl_high",
    "mean_tokens", "tokens_low", "tokens_high", "mean_score", "score_low", "score_high", "pairs", "examples", "seconds",
)  # fmt: skip

RESULTS = """
WITH decided AS (
    SELECT run_id, round, arg_max(policy_id, number) AS policy_id
    FROM decisions WHERE list_contains($runs, run_id) GROUP BY ALL
),
gated AS (
    SELECT e.run_id, e.round, CASE WHEN e.value = 1 THEN e.candidate_id ELSE r.policy_id END AS policy_id
    FROM evaluations e LEFT JOIN rounds r USING (run_id, round)
    WHERE e.metric = 'accepted' AND list_contains($runs, e.run_id)
),
settled AS (FROM decided UNION ALL FROM gated ANTI JOIN decided USING (run_id, round)),
now AS (SELECT run_id, max(round) AS rounds, arg_max(policy_id, round) AS policy_id FROM settled GROUP BY run_id),
measured AS (
    SELECT run_id, candidate_id AS policy_id, max(round) AS round,
           {metrics}
    FROM evaluations WHERE list_contains($runs, run_id) GROUP BY ALL
),
paired AS (SELECT run_id, count(*) AS pairs FROM pairs GROUP BY run_id),
grouped AS (SELECT run_id, count(*) AS examples FROM examples GROUP BY run_id),
learned AS (SELECT run_id, sum(seconds) AS seconds FROM updates GROUP BY run_id)
SELECT now.run_id, now.rounds, measured.* EXCLUDE (run_id, policy_id), pairs, examples, seconds
FROM now LEFT JOIN measured USING (run_id, policy_id) LEFT JOIN paired USING (run_id)
LEFT JOIN grouped USING (run_id) LEFT JOIN learned USING (run_id)
"""
PICKED = """max(value) FILTER (metric = '{metric}') AS {metric},
    max(low) FILTER (metric = '{metric}') AS {short}_low, max(high) FILTER (metric = '{metric}') AS {short}_high"""
METRICS = {"pass": "pass_rate", "win": "win_rate", "kl": "kl", "tokens": "mean_tokens", "score": "mean_score"}


def results(store: DuckStore, runs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By run id, a dict of COLUMNS without `point` and `wanted`; only runs that were measured."""
    if not store.db.path.exists():
        return {}
    metrics = ", ".join(PICKED.format(metric=metric, short=short) for short, metric in METRICS.items())
    with store.db.read() as con:
        by_run = rows(con, RESULTS.format(metrics=metrics), {"runs": list(runs)})
    return {row["run_id"]: row for row in by_run}
