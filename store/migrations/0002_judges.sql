-- What a judgement cost; which pairs a reward model learned from; duels, agreement and costs as views.

CREATE TABLE judges (
    judge          VARCHAR PRIMARY KEY,
    kind           VARCHAR NOT NULL,
    options        JSON NOT NULL,
    weights_sha256 VARCHAR[] NOT NULL
);

CREATE TABLE judge_calls (
    judge_call_id     VARCHAR PRIMARY KEY,
    judge             VARCHAR NOT NULL,
    judgement_id      VARCHAR NOT NULL,
    attempt           INTEGER NOT NULL,
    model             VARCHAR NOT NULL,
    reply             VARCHAR,
    error             VARCHAR NOT NULL,
    prompt_tokens     INTEGER,
    completion_tokens INTEGER,
    cost              DOUBLE,
    seconds           DOUBLE NOT NULL
);

CREATE TABLE update_pairs (
    update_pair_id VARCHAR PRIMARY KEY,
    update_id      VARCHAR NOT NULL,
    pair_id        VARCHAR NOT NULL
);

CREATE VIEW duels AS
SELECT
    judge, member, principle, completion_id, rival_id,
    max(value) FILTER ("order" = 0) AS p_shown_first, max(value) FILTER ("order" = 1) AS p_shown_second,
    count(value) = 2 AS answered,
    CASE WHEN count(value) < 2 THEN NULL
         WHEN (max(value) FILTER ("order" = 0) - 0.5) * (max(value) FILTER ("order" = 1) - 0.5) < 0 THEN 0.5
         ELSE avg(value) END AS p_wins
FROM judgements
WHERE rival_id IS NOT NULL
GROUP BY ALL;
COMMENT ON VIEW duels IS
'Each comparison of two answers, in both orders: p_wins is P(completion beats rival), 0.5 where the orders disagree on '
'the winner, NULL where one has no answer';

CREATE VIEW position_bias AS
SELECT
    judge, count(*) AS duels,
    avg(((p_shown_first - 0.5) * (p_shown_second - 0.5) < 0)::INTEGER) AS disagree,
    avg((p_shown_first > 0.5 AND p_shown_second < 0.5)::INTEGER) AS both_first,
    avg((p_shown_first < 0.5 AND p_shown_second > 0.5)::INTEGER) AS both_second
FROM duels
WHERE answered
GROUP BY judge;
COMMENT ON VIEW position_bias IS
'How often a judge of pairs names another winner when the answers change places: the answer shown first both times '
'(both_first), or the one shown second (both_second)';

CREATE VIEW judge_agreement AS
WITH verdicts AS (
    SELECT judge, completion_id, rival_id, sign(avg(p_wins) - 0.5) AS verdict
    FROM duels WHERE p_wins IS NOT NULL GROUP BY ALL
    UNION ALL
    SELECT a.judge, a.completion_id, b.completion_id, sign(a.score - b.score)
    FROM scores a JOIN scores b ON a.judge = b.judge AND a.completion_id < b.completion_id
    JOIN completions c ON c.completion_id = a.completion_id
    JOIN completions d ON d.completion_id = b.completion_id AND d.prompt_id = c.prompt_id
        AND d.run_id = c.run_id AND d.round = c.round AND d.policy_id = c.policy_id
    WHERE a.score IS NOT NULL AND b.score IS NOT NULL
),
ordered AS (  -- one direction for each two answers, whichever way a judge was asked
    SELECT judge, least(completion_id, rival_id) AS one, greatest(completion_id, rival_id) AS other,
           any_value(CASE WHEN completion_id < rival_id THEN verdict ELSE -verdict END) AS verdict
    FROM verdicts GROUP BY ALL
)
SELECT
    a.judge AS judge, b.judge AS other_judge, count(*) AS duels, avg((a.verdict = b.verdict)::INTEGER) AS agreement,
    avg((a.verdict = -b.verdict AND a.verdict <> 0)::INTEGER) AS opposed
FROM ordered a JOIN ordered b ON a.one = b.one AND a.other = b.other AND a.judge < b.judge
GROUP BY ALL;
COMMENT ON VIEW judge_agreement IS
'How often two judges name the same winner (or both a tie) of the same two answers, and how often opposite ones';

CREATE VIEW judge_costs AS
SELECT
    judge, model, count(*) AS calls, count(DISTINCT judgement_id) AS questions, count(*) FILTER (error <> '') AS failed,
    sum(prompt_tokens) AS prompt_tokens, sum(completion_tokens) AS completion_tokens, sum(cost) AS cost,
    sum(seconds) AS seconds
FROM judge_calls
GROUP BY ALL;
COMMENT ON VIEW judge_costs IS 'Calls, tokens and cost of each judge that asks a model';

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
sampled AS (
    SELECT c.run_id, c.round, count(*) AS completions, count(s.completion_id) AS judged, avg(s.score) AS mean_score,
           avg(len(c.token_ids)) AS mean_tokens, avg((c.finish_reason = 'length')::INTEGER) AS truncated
    FROM completions c
    JOIN prompts p ON p.prompt_id = c.prompt_id AND p.split = 'train'
    LEFT JOIN answered s ON s.completion_id = c.completion_id
    GROUP BY ALL
),
paired AS (
    SELECT run_id, round, count(*) AS pairs FROM pairs GROUP BY ALL
),
yield AS (
    SELECT run_id, round, count(*) FILTER (outcome = 'paired') AS paired, count(*) FILTER (outcome = 'tie') AS ties,
           count(*) FILTER (outcome = 'identical') AS identical, count(*) FILTER (outcome = 'abstained') AS abstained,
           count(*) FILTER (outcome = 'failed') AS failed
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
    m.pass_rate, m.pass_low, m.pass_high, m.win_rate, m.win_low, m.win_high, m.kl, m.eval_tokens
FROM played a
LEFT JOIN sampled s USING (run_id, round)
LEFT JOIN paired q USING (run_id, round)
LEFT JOIN yield y USING (run_id, round)
LEFT JOIN measured m USING (run_id, round)
LEFT JOIN updates u USING (run_id, round)
ORDER BY a.run_id, a.round;
COMMENT ON VIEW round_summary IS
'One row a round: what was sampled, judged and paired (prompts = paired + ties + identical + abstained + failed), '
'what learning did, and how the candidate did on held-out prompts. Round 0 is the initial policy';

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
UNION ALL SELECT evaluation_id, 'evaluation', candidate_id, 'checkpoint' FROM evaluations;
COMMENT ON VIEW lineage IS 'Edges from every row to the rows that caused it, both named by id and kind';
