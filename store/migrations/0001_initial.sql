-- The records of loop/types.py, one table each. A key is <record>_id; a run is run_id; a round number is round.

CREATE TABLE runs (
    run_id        VARCHAR PRIMARY KEY,
    name          VARCHAR NOT NULL,
    seed          BIGINT NOT NULL,
    config        JSON NOT NULL,
    config_sha256 VARCHAR NOT NULL,
    versions      JSON NOT NULL,
    created_at    TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE TABLE rounds (
    round_id     VARCHAR PRIMARY KEY,
    run_id       VARCHAR NOT NULL,
    round        INTEGER NOT NULL,
    policy_id    VARCHAR NOT NULL,
    opponent_id  VARCHAR NOT NULL,
    reference_id VARCHAR NOT NULL,
    initial_id   VARCHAR NOT NULL,
    prompt_ids   VARCHAR[] NOT NULL
);

CREATE TABLE prompts (
    prompt_id VARCHAR PRIMARY KEY,
    messages  JSON NOT NULL,
    split     VARCHAR NOT NULL CHECK (split IN ('train', 'eval')),
    source    VARCHAR NOT NULL,
    meta      JSON NOT NULL
);

CREATE TABLE completions (
    completion_id VARCHAR PRIMARY KEY,
    run_id        VARCHAR NOT NULL,
    round         INTEGER NOT NULL,
    prompt_id     VARCHAR NOT NULL,
    policy_id     VARCHAR NOT NULL,
    sample        INTEGER NOT NULL,
    origin        VARCHAR NOT NULL CHECK (origin IN ('policy', 'reference', 'dataset', 'human')),
    text          VARCHAR NOT NULL,
    token_ids     INTEGER[] NOT NULL,
    logprobs      FLOAT[] NOT NULL,
    finish_reason VARCHAR NOT NULL CHECK (finish_reason IN ('stop', 'length')),
    temperature   DOUBLE NOT NULL,
    top_p         DOUBLE NOT NULL,
    seed          BIGINT NOT NULL
);

CREATE TABLE judgements (
    judgement_id  VARCHAR PRIMARY KEY,
    judge         VARCHAR NOT NULL,
    completion_id VARCHAR NOT NULL,
    rival_id      VARCHAR,
    member        VARCHAR NOT NULL,
    principle     VARCHAR NOT NULL,
    "order"       INTEGER NOT NULL,
    value         DOUBLE,
    rationale     VARCHAR NOT NULL
);

CREATE TABLE outcomes (
    outcome_id VARCHAR PRIMARY KEY,
    run_id     VARCHAR NOT NULL,
    round      INTEGER NOT NULL,
    prompt_id  VARCHAR NOT NULL,
    outcome    VARCHAR NOT NULL CHECK (outcome IN ('paired', 'tie', 'identical', 'abstained', 'failed')),
    reason     VARCHAR NOT NULL
);

CREATE TABLE pairs (
    pair_id             VARCHAR PRIMARY KEY,
    run_id              VARCHAR NOT NULL,
    round               INTEGER NOT NULL,
    prompt_id           VARCHAR NOT NULL,
    chosen_id           VARCHAR NOT NULL,
    rejected_id         VARCHAR NOT NULL,
    p_chosen            DOUBLE NOT NULL CHECK (p_chosen BETWEEN 0 AND 1),
    margin              DOUBLE NOT NULL,
    weight              DOUBLE NOT NULL,
    builder             VARCHAR NOT NULL,
    reference_sample_id VARCHAR,
    CHECK (chosen_id <> rejected_id)
);

CREATE TABLE logprobs (
    logprob_id     VARCHAR PRIMARY KEY,
    completion_id  VARCHAR NOT NULL,
    weights_sha256 VARCHAR NOT NULL,
    value          DOUBLE NOT NULL,
    n_tokens       INTEGER NOT NULL
);

CREATE TABLE updates (
    update_id  VARCHAR PRIMARY KEY,
    run_id     VARCHAR NOT NULL,
    round      INTEGER NOT NULL,
    algorithm  VARCHAR NOT NULL,
    before_id  VARCHAR NOT NULL,
    after_id   VARCHAR NOT NULL,
    n_examples INTEGER NOT NULL,
    seconds    DOUBLE NOT NULL,
    metrics    JSON NOT NULL
);

CREATE TABLE update_steps (
    update_step_id VARCHAR PRIMARY KEY,
    update_id      VARCHAR NOT NULL,
    step           INTEGER NOT NULL,
    metrics        JSON NOT NULL
);

CREATE TABLE checkpoints (
    checkpoint_id  VARCHAR PRIMARY KEY,
    run_id         VARCHAR NOT NULL,
    path           VARCHAR NOT NULL,
    parent_id      VARCHAR,
    weights_sha256 VARCHAR NOT NULL
);

CREATE TABLE evaluations (
    evaluation_id VARCHAR PRIMARY KEY,
    run_id        VARCHAR NOT NULL,
    round         INTEGER NOT NULL,
    candidate_id  VARCHAR NOT NULL,
    rival_id      VARCHAR NOT NULL,
    metric        VARCHAR NOT NULL,
    value         DOUBLE NOT NULL,
    low           DOUBLE,
    high          DOUBLE,
    n             INTEGER NOT NULL
);

CREATE VIEW scores AS
SELECT completion_id, judge, avg(value) AS score, count(value) AS answers, count(*) - count(value) AS abstentions
FROM judgements
WHERE rival_id IS NULL
GROUP BY completion_id, judge;
COMMENT ON VIEW scores IS 'The mean score a judge gave a completion, with its answers and abstentions counted';

CREATE VIEW pair_texts AS
SELECT
    x.pair_id, x.run_id, x.round, x.prompt_id,
    p.messages ->> '$[#-1].content' AS prompt,
    c.text AS chosen, r.text AS rejected,
    (SELECT avg(score) FROM scores s WHERE s.completion_id = x.chosen_id) AS chosen_score,
    (SELECT avg(score) FROM scores s WHERE s.completion_id = x.rejected_id) AS rejected_score,
    x.p_chosen, x.margin, x.weight, x.builder, x.chosen_id, x.rejected_id
FROM pairs x
JOIN prompts p USING (prompt_id)
JOIN completions c ON c.completion_id = x.chosen_id
JOIN completions r ON r.completion_id = x.rejected_id;
COMMENT ON VIEW pair_texts IS 'Every preference pair with its prompt, both texts and both scores';

CREATE VIEW win_rates AS
SELECT run_id, round, candidate_id, rival_id, value AS win_rate, low, high, n
FROM evaluations
WHERE metric = 'win_rate';
COMMENT ON VIEW win_rates IS 'Share of held-out prompts won over the rival (ties count half), with a 95 % interval';

CREATE VIEW round_summary AS
WITH played AS (
    SELECT run_id, round, policy_id, len(prompt_ids) AS prompts FROM rounds
    UNION ALL
    SELECT DISTINCT run_id, 0, candidate_id, 0 FROM evaluations WHERE round = 0
),
sampled AS (
    SELECT c.run_id, c.round, count(*) AS completions, count(s.score) AS judged, avg(s.score) AS mean_score,
           avg(len(c.token_ids)) AS mean_tokens, avg((c.finish_reason = 'length')::INTEGER) AS truncated
    FROM completions c
    JOIN prompts p ON p.prompt_id = c.prompt_id AND p.split = 'train'
    LEFT JOIN scores s ON s.completion_id = c.completion_id
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

CREATE VIEW lineage AS
SELECT completion_id AS id, 'completion' AS kind, prompt_id AS cause_id, 'prompt' AS cause_kind FROM completions
UNION ALL SELECT completion_id, 'completion', policy_id, 'checkpoint' FROM completions
UNION ALL SELECT judgement_id, 'judgement', completion_id, 'completion' FROM judgements
UNION ALL SELECT pair_id, 'pair', chosen_id, 'completion' FROM pairs
UNION ALL SELECT pair_id, 'pair', rejected_id, 'completion' FROM pairs
UNION ALL SELECT update_id, 'update', before_id, 'checkpoint' FROM updates
UNION ALL SELECT u.update_id, 'update', x.pair_id, 'pair' FROM updates u JOIN pairs x USING (run_id, round)
UNION ALL SELECT after_id, 'checkpoint', update_id, 'update' FROM updates
UNION ALL SELECT evaluation_id, 'evaluation', candidate_id, 'checkpoint' FROM evaluations;
COMMENT ON VIEW lineage IS 'Edges from every row to the rows that caused it, both named by id and kind';
