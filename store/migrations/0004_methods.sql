-- What learning methods need beside pairs of the policy's own answers.

ALTER TABLE completions ADD COLUMN parent_id VARCHAR;
ALTER TABLE logprobs ADD COLUMN token_logprobs FLOAT[];
ALTER TABLE updates ADD COLUMN reference_ids VARCHAR[];

CREATE TABLE examples (
    example_id    VARCHAR PRIMARY KEY,
    run_id        VARCHAR NOT NULL,
    round         INTEGER NOT NULL,
    prompt_id     VARCHAR NOT NULL,
    completion_id VARCHAR NOT NULL,
    reward        DOUBLE NOT NULL,
    weight        DOUBLE NOT NULL,
    builder       VARCHAR NOT NULL
);
COMMENT ON TABLE examples IS
'Single answers that an update learned from, with their reward (or label, 1 or 0): those of a prompt and round are a group';

-- DuckDB cannot change a CHECK: the table is made anew, with the outcome `filtered`.
CREATE TABLE outcomes_with_filtered (
    outcome_id VARCHAR PRIMARY KEY,
    run_id     VARCHAR NOT NULL,
    round      INTEGER NOT NULL,
    prompt_id  VARCHAR NOT NULL,
    outcome    VARCHAR NOT NULL CHECK (outcome IN ('paired', 'tie', 'identical', 'abstained', 'filtered', 'failed')),
    reason     VARCHAR NOT NULL
);
INSERT INTO outcomes_with_filtered SELECT * FROM outcomes;
DROP TABLE outcomes;
ALTER TABLE outcomes_with_filtered RENAME TO outcomes;

CREATE OR REPLACE VIEW round_summary AS
WITH played AS (
    SELECT run_id, round, policy_id, len(prompt_ids) AS prompts FROM rounds
    UNION ALL
    SELECT DISTINCT run_id, 0, candidate_id, 0 FROM evaluations WHERE round = 0
),
answered AS (  -- a completion once, however many judges, members and orders it was put to
    SELECT completion_id, avg(value) FILTER (rival_id IS NULL) AS score
    FROM judgements WHERE value IS NOT NULL GROUP BY completion_id
    UNION ALL
    SELECT DISTINCT rival_id, NULL::DOUBLE FROM judgements
    WHERE value IS NOT NULL AND rival_id IS NOT NULL
    AND rival_id NOT IN (SELECT completion_id FROM judgements WHERE value IS NOT NULL)
),
sampled AS (  -- full answers: the partial ones of a tree, from which another goes on, are not judged
    SELECT c.run_id, c.round, count(*) AS completions, count(s.completion_id) AS judged, avg(s.score) AS mean_score,
           avg(len(c.token_ids)) AS mean_tokens, avg((c.finish_reason = 'length')::INTEGER) AS truncated
    FROM completions c
    JOIN prompts p ON p.prompt_id = c.prompt_id AND p.split = 'train'
    ANTI JOIN completions k ON k.parent_id = c.completion_id
    LEFT JOIN answered s ON s.completion_id = c.completion_id
    GROUP BY ALL
),
paired AS (
    SELECT run_id, round, count(*) AS pairs FROM pairs GROUP BY ALL
),
grouped AS (
    SELECT run_id, round, count(*) AS examples FROM examples GROUP BY ALL
),
yield AS (
    SELECT run_id, round, count(*) FILTER (outcome = 'paired') AS paired, count(*) FILTER (outcome = 'tie') AS ties,
           count(*) FILTER (outcome = 'identical') AS identical, count(*) FILTER (outcome = 'abstained') AS abstained,
           count(*) FILTER (outcome = 'filtered') AS filtered, count(*) FILTER (outcome = 'failed') AS failed
    FROM outcomes GROUP BY ALL
),
measured AS (
    SELECT run_id, round, any_value(candidate_id) AS candidate_id,
           max(value) FILTER (metric = 'pass_rate') AS pass_rate,
           max(low) FILTER (metric = 'pass_rate') AS pass_low, max(high) FILTER (metric = 'pass_rate') AS pass_high,
           max(value) FILTER (metric = 'win_rate') AS win_rate,
           max(low) FILTER (metric = 'win_rate') AS win_low, max(high) FILTER (metric = 'win_rate') AS win_high,
           max(value) FILTER (metric = 'kl') AS kl, max(value) FILTER (metric = 'mean_tokens') AS eval_tokens,
           max(value) FILTER (metric = 'accepted') = 1 AS accepted
    FROM evaluations GROUP BY ALL
)
SELECT
    a.run_id, a.round, a.policy_id, m.candidate_id, m.accepted, a.prompts, s.completions, s.judged, q.pairs,
    y.paired, y.ties, y.identical, y.abstained, y.failed, s.mean_score, s.mean_tokens, s.truncated,
    (u.metrics ->> 'loss')::DOUBLE AS loss, (u.metrics ->> 'accuracy')::DOUBLE AS accuracy,
    m.pass_rate, m.pass_low, m.pass_high, m.win_rate, m.win_low, m.win_high, m.kl, m.eval_tokens,
    y.filtered, g.examples
FROM played a
LEFT JOIN sampled s USING (run_id, round)
LEFT JOIN paired q USING (run_id, round)
LEFT JOIN grouped g USING (run_id, round)
LEFT JOIN yield y USING (run_id, round)
LEFT JOIN measured m USING (run_id, round)
LEFT JOIN updates u USING (run_id, round)
ORDER BY a.run_id, a.round;
COMMENT ON VIEW round_summary IS
'One row a round: what was sampled (full answers), judged and paired (prompts = paired + ties + identical + abstained '
'+ filtered + failed), what learning did, and how the candidate did on held-out prompts. Round 0 is the initial policy';

CREATE OR REPLACE VIEW lineage AS
SELECT completion_id AS id, 'completion' AS kind, prompt_id AS cause_id, 'prompt' AS cause_kind FROM completions
UNION ALL SELECT completion_id, 'completion', policy_id, 'checkpoint' FROM completions WHERE policy_id <> ''
UNION ALL SELECT judgement_id, 'judgement', completion_id, 'completion' FROM judgements
UNION ALL SELECT judgement_id, 'judgement', rival_id, 'completion' FROM judgements WHERE rival_id IS NOT NULL
UNION ALL SELECT j.judgement_id, 'judgement', j.judge, 'judge' FROM judgements j SEMI JOIN judges USING (judge)
UNION ALL SELECT j.judgement_id, 'judgement', k.checkpoint_id, 'checkpoint'  -- a policy that judged
    FROM judgements j JOIN checkpoints k ON k.checkpoint_id = split_part(j.member, '|', -1)
UNION ALL SELECT w.judge, 'judge', k.checkpoint_id, 'checkpoint'
    FROM (SELECT judge, unnest(weights_sha256) AS weights_sha256 FROM judges) w
    JOIN checkpoints k USING (weights_sha256)
UNION ALL SELECT pair_id, 'pair', chosen_id, 'completion' FROM pairs
UNION ALL SELECT pair_id, 'pair', rejected_id, 'completion' FROM pairs
UNION ALL SELECT completion_id, 'completion', parent_id, 'completion' FROM completions WHERE parent_id IS NOT NULL
UNION ALL SELECT pair_id, 'pair', reference_sample_id, 'completion' FROM pairs
    WHERE reference_sample_id NOT IN (chosen_id, rejected_id)
UNION ALL SELECT example_id, 'example', completion_id, 'completion' FROM examples
UNION ALL SELECT update_id, 'update', before_id, 'checkpoint' FROM updates
UNION ALL SELECT update_id, 'update', reference_id, 'checkpoint'
    FROM (SELECT update_id, before_id, unnest(reference_ids) AS reference_id FROM updates)
    WHERE reference_id <> before_id
UNION ALL SELECT u.update_id, 'update', x.example_id, 'example' FROM updates u JOIN examples x USING (run_id, round)
UNION ALL SELECT u.update_id, 'update', x.pair_id, 'pair' FROM updates u JOIN pairs x USING (run_id, round)
UNION ALL SELECT update_id, 'update', pair_id, 'pair' FROM update_pairs
UNION ALL SELECT after_id, 'checkpoint', update_id, 'update' FROM updates
UNION ALL SELECT evaluation_id, 'evaluation', candidate_id, 'checkpoint' FROM evaluations
UNION ALL SELECT decision_id, 'decision', policy_id, 'checkpoint' FROM decisions;
COMMENT ON VIEW lineage IS 'Edges from every row to the rows that caused it, both named by id and kind';
