-- What people and rules decide about a run: decisions, stops, and checkpoints whose files were removed.

CREATE TABLE decisions (
    decision_id VARCHAR PRIMARY KEY,
    run_id      VARCHAR NOT NULL,
    round       INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    kind        VARCHAR NOT NULL CHECK (kind IN ('approve', 'reject', 'rollback')),
    policy_id   VARCHAR NOT NULL,
    reason      VARCHAR NOT NULL,
    decided_by  VARCHAR NOT NULL,
    decided_at  TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE decisions IS
'What a person decided after a round: the run goes on from policy_id. The highest number of a round counts';

CREATE TABLE stops (
    stop_id    VARCHAR PRIMARY KEY,
    run_id     VARCHAR NOT NULL,
    round      INTEGER NOT NULL,
    rule       VARCHAR NOT NULL,
    found      DOUBLE NOT NULL,
    bound      DOUBLE NOT NULL,
    message    VARCHAR NOT NULL,
    stopped_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE stops IS 'Rounds after which a stop rule ended the run: what the rule found, and its bound';

CREATE TABLE removals (
    checkpoint_id VARCHAR PRIMARY KEY,
    run_id        VARCHAR NOT NULL,
    reason        VARCHAR NOT NULL,
    removed_at    TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE removals IS 'Checkpoints whose weight files were removed from disk by the retention rule';

CREATE OR REPLACE VIEW duels AS
WITH asked AS (  -- people see one order, drawn at random
    SELECT j.*, CASE WHEN k.kind = 'people' THEN 1 ELSE 2 END AS orders
    FROM judgements j LEFT JOIN judges k USING (judge)
    WHERE j.rival_id IS NOT NULL
)
SELECT
    judge, member, principle, completion_id, rival_id,
    max(value) FILTER ("order" = 0) AS p_shown_first, max(value) FILTER ("order" = 1) AS p_shown_second,
    count(value) >= orders AS answered,
    CASE WHEN count(value) < orders THEN NULL
         WHEN (max(value) FILTER ("order" = 0) - 0.5) * (max(value) FILTER ("order" = 1) - 0.5) < 0 THEN 0.5
         ELSE avg(value) END AS p_wins
FROM asked
GROUP BY judge, member, principle, completion_id, rival_id, orders;
COMMENT ON VIEW duels IS
'Each comparison of two answers, in both orders (people see one, drawn at random): p_wins is P(completion beats rival), '
'0.5 where the orders disagree on the winner, NULL where one has no answer';

CREATE OR REPLACE VIEW position_bias AS
SELECT
    judge, count(*) AS duels,
    avg(((p_shown_first - 0.5) * (p_shown_second - 0.5) < 0)::INTEGER) AS disagree,
    avg((p_shown_first > 0.5 AND p_shown_second < 0.5)::INTEGER) AS both_first,
    avg((p_shown_first < 0.5 AND p_shown_second > 0.5)::INTEGER) AS both_second
FROM duels
WHERE p_shown_first IS NOT NULL AND p_shown_second IS NOT NULL
GROUP BY judge;
COMMENT ON VIEW position_bias IS
'How often a judge of pairs names another winner when the answers change places: the answer shown first both times '
'(both_first), or the one shown second (both_second)';

CREATE OR REPLACE VIEW lineage AS
SELECT completion_id AS id, 'completion' AS kind, prompt_id AS cause_id, 'prompt' AS cause_kind FROM completions
UNION ALL SELECT completion_id, 'completion', policy_id, 'checkpoint' FROM completions WHERE policy_id <> ''
UNION ALL SELECT judgement_id, 'judgement', completion_id, 'completion' FROM judgements
UNION ALL SELECT judgement_id, 'judgement', rival_id, 'completion' FROM judgements WHERE rival_id IS NOT NULL
UNION ALL SELECT j.judgement_id, 'judgement', j.judge, 'judge' FROM judgements j SEMI JOIN judges USING (judge)
UNION ALL SELECT w.judge, 'judge', k.checkpoint_id, 'checkpoint'
    FROM (SELECT judge, unnest(weights_sha256) AS weights_sha256 FROM judges) w
    JOIN checkpoints k USING (weights_sha256)
UNION ALL SELECT pair_id, 'pair', chosen_id, 'completion' FROM pairs
UNION ALL SELECT pair_id, 'pair', rejected_id, 'completion' FROM pairs
UNION ALL SELECT update_id, 'update', before_id, 'checkpoint' FROM updates
UNION ALL SELECT u.update_id, 'update', x.pair_id, 'pair' FROM updates u JOIN pairs x USING (run_id, round)
UNION ALL SELECT update_id, 'update', pair_id, 'pair' FROM update_pairs
UNION ALL SELECT after_id, 'checkpoint', update_id, 'update' FROM updates
UNION ALL SELECT evaluation_id, 'evaluation', candidate_id, 'checkpoint' FROM evaluations
UNION ALL SELECT decision_id, 'decision', policy_id, 'checkpoint' FROM decisions;
COMMENT ON VIEW lineage IS 'Edges from every row to the rows that caused it, both named by id and kind';
