"""The rows that an update learns from: one per pair or group of answers, with all that a learner needs."""

from collections.abc import Sequence

import pyarrow as pa

from sparring.loop.types import Checkpoint, Round
from sparring.store.db import Database, table

# A pair's answers: chosen, rejected, and the reference sample where it is neither of the two.
PAIRS = """
    SELECT pair_id AS row_id, prompt_id, p_chosen, margin, weight,
        CASE WHEN reference_sample_id IS NULL OR reference_sample_id IN (chosen_id, rejected_id)
             THEN [chosen_id, rejected_id] ELSE [chosen_id, rejected_id, reference_sample_id] END AS completion_ids,
        CASE reference_sample_id WHEN chosen_id THEN 0 WHEN rejected_id THEN 1 ELSE 2 END AS sample_place,
        reference_sample_id IS NOT NULL AS has_sample,
        (SELECT arg_min(j.rationale, j.judgement_id) FROM judgements j
         WHERE j.rationale <> '' AND (j.completion_id = chosen_id AND j.rival_id = rejected_id AND j.value > 0.5
             OR j.completion_id = rejected_id AND j.rival_id = chosen_id AND j.value < 0.5)) AS rationale
    FROM pairs WHERE run_id = $run AND round = $round
"""
GROUPS = """
    SELECT prompt_id AS row_id, prompt_id,
        list(completion_id ORDER BY c.origin, c.policy_id, c.sample) AS completion_ids,
        list(reward ORDER BY c.origin, c.policy_id, c.sample) AS rewards,
        list(weight ORDER BY c.origin, c.policy_id, c.sample) AS weights
    FROM examples x JOIN completions c USING (completion_id, prompt_id)
    WHERE x.run_id = $run AND x.round = $round GROUP BY prompt_id
"""
ANSWERED = """
    WITH training_row AS MATERIALIZED ({rows}),
    item AS (
        SELECT row_id, unnest(completion_ids) AS completion_id, generate_subscripts(completion_ids, 1) AS place
        FROM training_row
    ),
    answer AS (
        SELECT row_id, list(c.token_ids ORDER BY place) AS token_ids, list(c.logprobs ORDER BY place) AS logprobs,
            list(c.finish_reason = 'stop' ORDER BY place) AS stopped, list(c.sample ORDER BY place) AS samples,
            arg_min(c.prompt_tokens_id, place) AS prompt_tokens_id
        FROM item JOIN completions c USING (completion_id) GROUP BY row_id
    ),
    asked AS (SELECT unnest($weights::VARCHAR[]) AS weights_sha256, generate_subscripts($weights, 1) AS number),
    scored AS (
        SELECT row_id, number, list(l.token_logprobs ORDER BY place) AS tokens
        FROM item CROSS JOIN asked LEFT JOIN logprobs l USING (completion_id, weights_sha256)
        GROUP BY row_id, number
    ),
    referred AS (SELECT row_id, list(tokens ORDER BY number) AS reference FROM scored GROUP BY row_id)
    SELECT l.* EXCLUDE (prompt_id), p.messages, a.* EXCLUDE (row_id, samples, prompt_tokens_id),
        t.token_ids AS prompt_token_ids,
        coalesce(r.reference, []) AS reference
    FROM training_row l JOIN prompts p USING (prompt_id) JOIN answer a USING (row_id)
    LEFT JOIN referred r USING (row_id) LEFT JOIN prompt_tokens t USING (prompt_tokens_id)
    ORDER BY prompt_id, a.samples, row_id
"""


def training_rows(db: Database, rnd: Round, references: Sequence[Checkpoint]) -> pa.Table:
    """One row per pair of the round, or per group if the round has examples instead.

    The order does not depend on the run's name, so that the same config learns the same under two names. Columns of
    both: row_id (of the pair, or the prompt), messages, prompt_token_ids (the prompt as the policy was given it, null
    where that was not kept), completion_ids, and lists along these: token_ids, logprobs (the sampler's, one per token),
    stopped. `reference` has, for each of `references`, the token log-probs of each
    completion under it, null where they are not known yet. Columns of pairs: p_chosen, margin, weight, has_sample,
    sample_place (which completion is the reference sample) and rationale. Columns of groups: rewards and weights.
    """
    parameters = {"run": rnd.run, "round": rnd.index, "weights": [r.weights_sha256 for r in references]}
    with db.read() as con:
        pairs = table(con, ANSWERED.format(rows=PAIRS), parameters)
        return pairs if pairs.num_rows else table(con, ANSWERED.format(rows=GROUPS), parameters)
