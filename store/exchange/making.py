"""The SQL from staged rows to rows of the store: prompts, completions, judgements, pairs, examples, outcomes."""

from collections.abc import Iterator, Mapping

import duckdb
import pyarrow as pa

from sparring.store.db import named, table

CHUNK = 20_000  # rows of a file in one transaction
BUILDER = "import"

# Each prompt and each answer is added with the first row that has it. Answers of a group are numbered in the order of
# the file. Answers of pairs are numbered in the order of their ids, so that no number tells which was chosen.
FIRSTS = """
CREATE TABLE prompt AS SELECT prompt_id, min(n) AS n FROM given GROUP BY prompt_id;
CREATE TABLE answer AS
WITH place AS (
    SELECT n, shape = 'groups' AS ordered, prompt_id, unnest(completion_ids) AS completion_id,
        generate_subscripts(completion_ids, 1) AS place
    FROM given
),
first AS (
    SELECT completion_id, any_value(prompt_id) AS prompt_id, min(n) AS n, arg_min(place, n) AS place,
        bool_or(ordered) AS ordered
    FROM place GROUP BY completion_id
)
SELECT *, row_number() OVER (PARTITION BY prompt_id ORDER BY CASE WHEN ordered THEN n END,
    CASE WHEN ordered THEN place END, completion_id)::INTEGER - 1 AS sample FROM first;
"""
HERE = "BETWEEN $first AND $last"
ROW = "left(sha256(concat_ws('|', $run, file, number)), 20)"
COMPARED = "p IS NOT NULL"
PAIRED = "p IS NOT NULL AND p <> 0.5 AND texts[1] <> texts[2]"
MADE: Mapping[str, str] = {
    "prompts": f"""SELECT prompt_id, messages, $split AS split, $source AS source, '{{}}' AS meta
        FROM given SEMI JOIN prompt USING (prompt_id, n) WHERE n {HERE} ORDER BY n""",
    "completions": f"""SELECT a.completion_id, $run AS run_id, 0::INTEGER AS round, prompt_id, '' AS policy_id,
            a.sample, $origin AS origin, g.texts[a.place] AS text, []::INTEGER[] AS token_ids, []::FLOAT[] AS logprobs,
            'stop' AS finish_reason, 0.0::DOUBLE AS temperature, 1.0::DOUBLE AS top_p, 0::BIGINT AS seed
        FROM answer a JOIN given g USING (n, prompt_id) WHERE n {HERE} ORDER BY n, a.place""",
    "judgements": f"""
        WITH said AS (
            SELECT n, 0 AS place, 'judgement_' || {ROW} AS judgement_id, completion_ids[1] AS completion_id,
                completion_ids[2] AS rival_id, p AS value
            FROM given WHERE n {HERE} AND {COMPARED}
            UNION ALL
            SELECT n, place, 'judgement_' || left(sha256(concat_ws('|', $judge, completion_id, value,
                CASE WHEN shape = 'labels' THEN number END, CASE WHEN shape = 'labels' THEN file END)), 20),
                completion_id, NULL, value
            FROM (SELECT n, file, number, shape, generate_subscripts(scores, 1) AS place,
                unnest(completion_ids) AS completion_id, unnest(scores) AS value FROM given WHERE n {HERE})
            WHERE value IS NOT NULL
        )
        SELECT DISTINCT ON (judgement_id) judgement_id, $judge AS judge, completion_id, rival_id, '' AS member,
            '' AS principle, 0::INTEGER AS "order", value, '' AS rationale, 'answered' AS status
        FROM said ORDER BY n, place""",
    "pairs": f"""SELECT 'pair_' || {ROW} AS pair_id, $run AS run_id, 0::INTEGER AS round, prompt_id,
            completion_ids[CASE WHEN p > 0.5 THEN 1 ELSE 2 END] AS chosen_id,
            completion_ids[CASE WHEN p > 0.5 THEN 2 ELSE 1 END] AS rejected_id, greatest(p, 1 - p) AS p_chosen, margin,
            weight, '{BUILDER}' AS builder
        FROM given WHERE n {HERE} AND {PAIRED} ORDER BY n""",
    "examples": f"""SELECT 'example_' || {ROW} AS example_id, $run AS run_id, 0::INTEGER AS round, prompt_id,
            completion_ids[1] AS completion_id, label::INTEGER::DOUBLE AS reward, weight,
            '{BUILDER}' AS builder
        FROM given WHERE n {HERE} AND label IS NOT NULL ORDER BY n""",
    "source_rows": f"""SELECT 'source_row_' || {ROW} AS source_row_id, ($sources::VARCHAR[])[file + 1] AS source_id,
            number, prompt_id, completion_ids, CASE WHEN {COMPARED} THEN 'judgement_' || {ROW} END AS judgement_id,
            CASE WHEN {PAIRED} THEN 'pair_' || {ROW} END AS pair_id,
            CASE WHEN label IS NOT NULL THEN 'example_' || {ROW} END AS example_id, fields
        FROM given WHERE n {HERE} ORDER BY n""",
}
# A prompt without a preference or a label has no outcome yet.
OUTCOMES = f"""
SELECT 'outcome_' || left(sha256(concat_ws('|', $run, prompt_id)), 20) AS outcome_id, $run AS run_id,
    0::INTEGER AS round, prompt_id, CASE WHEN bool_or({PAIRED}) OR bool_or(label IS NOT NULL) THEN 'paired'
        WHEN bool_or(texts[1] <> texts[2]) THEN 'tie' ELSE 'identical' END AS outcome, '' AS reason
FROM given WHERE {COMPARED} OR label IS NOT NULL GROUP BY prompt_id ORDER BY prompt_id
"""
COUNTS = f"""
SELECT count(*) AS rows, (SELECT count(*) FROM refused) AS refused, (SELECT count(*) FROM prompt) AS prompts,
    (SELECT count(*) FROM answer) AS completions,
    count(*) FILTER ({PAIRED}) AS pairs, count(*) FILTER (p = 0.5 AND texts[1] <> texts[2]) AS ties,
    count(*) FILTER ({COMPARED} AND texts[1] = texts[2]) AS identical, count(label) AS labels
FROM given
"""


def chunks(con: duckdb.DuckDBPyConnection, shared: Mapping[str, object]) -> Iterator[dict[str, pa.Table]]:
    """Tables of the store, in chunks of rows. The outcomes come last.

    `shared` has what all rows share: run, source, judge, split, origin, and `sources`, the ids of its files in order.
    """
    con.execute(FIRSTS)
    last = int(con.execute("SELECT coalesce(max(n), 0) FROM given").fetchall()[0][0])
    for first in range(1, last + 1, CHUNK):
        here = {**shared, "first": first, "last": first + CHUNK - 1}
        yield {name: table(con, sql, named(sql, here)) for name, sql in MADE.items()}
    yield {"outcomes": table(con, OUTCOMES, named(OUTCOMES, shared))}
