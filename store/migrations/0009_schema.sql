-- The records of sparring.loop.types, one table each, and the questions with names, one view each (see
-- store/questions.py). A key is <record>_id, a run is run_id, a round number is round.
-- This file is the schema of version 9, the oldest that can be opened; later changes are files of their own.

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
    prompt_ids   VARCHAR[] NOT NULL,
    judge        VARCHAR
);
COMMENT ON COLUMN rounds.judge IS 'By whose answers the round was paired; NULL where nobody noted it';

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
    seed          BIGINT NOT NULL,
    parent_id     VARCHAR
);

CREATE TABLE judges (
    judge          VARCHAR PRIMARY KEY,
    kind           VARCHAR NOT NULL,
    options        JSON NOT NULL,
    weights_sha256 VARCHAR[] NOT NULL
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

CREATE TABLE outcomes (
    outcome_id VARCHAR PRIMARY KEY,
    run_id     VARCHAR NOT NULL,
    round      INTEGER NOT NULL,
    prompt_id  VARCHAR NOT NULL,
    outcome    VARCHAR NOT NULL CHECK (outcome IN ('paired', 'tie', 'identical', 'abstained', 'filtered', 'failed')),
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

CREATE TABLE logprobs (
    logprob_id     VARCHAR PRIMARY KEY,
    completion_id  VARCHAR NOT NULL,
    weights_sha256 VARCHAR NOT NULL,
    value          DOUBLE NOT NULL,
    n_tokens       INTEGER NOT NULL,
    token_logprobs FLOAT[]
);

CREATE TABLE updates (
    update_id     VARCHAR PRIMARY KEY,
    run_id        VARCHAR NOT NULL,
    round         INTEGER NOT NULL,
    algorithm     VARCHAR NOT NULL,
    before_id     VARCHAR NOT NULL,
    after_id      VARCHAR NOT NULL,
    n_examples    INTEGER NOT NULL,
    seconds       DOUBLE NOT NULL,
    metrics       JSON NOT NULL,
    reference_ids VARCHAR[]
);

CREATE TABLE update_steps (
    update_step_id VARCHAR PRIMARY KEY,
    update_id      VARCHAR NOT NULL,
    step           INTEGER NOT NULL,
    metrics        JSON NOT NULL
);

CREATE TABLE update_pairs (
    update_pair_id VARCHAR PRIMARY KEY,
    update_id      VARCHAR NOT NULL,
    pair_id        VARCHAR NOT NULL
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

CREATE TABLE queries (
    query_id   VARCHAR PRIMARY KEY,
    run_id     VARCHAR NOT NULL,
    plug       VARCHAR NOT NULL,
    sql        VARCHAR NOT NULL,
    sql_sha256 VARCHAR NOT NULL
);
COMMENT ON TABLE queries IS
'SQL that a run was played with: who was paired (pair.query), which prompts came next (prompts.query), when to stop (stop.query)';

CREATE TABLE sources (
    source_id   VARCHAR PRIMARY KEY,
    run_id      VARCHAR NOT NULL,
    source      VARCHAR NOT NULL,
    licence     VARCHAR NOT NULL,
    path        VARCHAR NOT NULL,
    sha256      VARCHAR NOT NULL,
    shape       VARCHAR NOT NULL CHECK (shape IN ('pairs', 'comparisons', 'groups', 'labels')),
    split       VARCHAR NOT NULL CHECK (split IN ('train', 'eval')),
    columns     JSON NOT NULL,
    rows        BIGINT NOT NULL,
    refused     BIGINT NOT NULL,
    imported_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE sources IS
'Files that were imported: whose they are (source, licence), their hash, which of their columns were read as what, how '
'many rows were taken and how many refused';

CREATE TABLE source_rows (
    source_row_id  VARCHAR PRIMARY KEY,
    source_id      VARCHAR NOT NULL,
    number         BIGINT NOT NULL,
    prompt_id      VARCHAR NOT NULL,
    completion_ids VARCHAR[] NOT NULL,
    judgement_id   VARCHAR,
    pair_id        VARCHAR,
    example_id     VARCHAR,
    fields         JSON NOT NULL
);
COMMENT ON TABLE source_rows IS
'Every row of an imported file, by number from 1: what was made of it, its answers in the order given, and as `fields` '
'the columns that have no place elsewhere';

CREATE TABLE forgotten (
    prompt_id      VARCHAR PRIMARY KEY,
    reason         VARCHAR NOT NULL,
    forgotten_by   VARCHAR NOT NULL,
    forgotten_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
    removed        JSON NOT NULL,
    run_ids        VARCHAR[] NOT NULL,
    update_ids     VARCHAR[] NOT NULL,
    checkpoint_ids VARCHAR[] NOT NULL
);
COMMENT ON TABLE forgotten IS
'Prompts that were removed with all that came from them (removed: rows by table). The updates had learned from them, and '
'the checkpoints came of those updates: weights do not forget. The id is a digest: who guesses the prompt can confirm it';

-- The steps of a walk through the lineage that would otherwise scan the longest tables.
CREATE INDEX completions_of_prompt ON completions (prompt_id);
CREATE INDEX judgements_of_completion ON judgements (completion_id);
CREATE INDEX judgements_of_rival ON judgements (rival_id);

-- Each view that people ask by run has run_id, so that DuckDB filters by run before the work.

CREATE VIEW scores AS
SELECT completion_id, judge, avg(value) AS score, count(value) AS answers, count(*) - count(value) AS abstentions
FROM judgements
WHERE rival_id IS NULL
GROUP BY completion_id, judge;
COMMENT ON VIEW scores IS 'The mean score a judge gave a completion, with its answers and abstentions counted';

CREATE VIEW prompt_scores AS
SELECT
    c.run_id, c.round, c.prompt_id, c.policy_id, j.judge, count(j.value) AS answers, avg(j.value) AS mean_score,
    min(j.value) AS lowest, max(j.value) AS highest
FROM judgements j JOIN completions c USING (completion_id)
WHERE j.rival_id IS NULL AND j.value IS NOT NULL
GROUP BY c.run_id, c.round, c.prompt_id, c.policy_id, j.judge;
COMMENT ON VIEW prompt_scores IS
'What a judge of single answers said of the answers of one policy to one prompt in a round, judgements without an '
'answer left out';

CREATE VIEW duels AS
WITH asked AS (
    SELECT j.*, CASE WHEN k.kind IN ('people', 'import') THEN 1 ELSE 2 END AS orders
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
'Each comparison of two answers, in both orders (people see one, drawn at random; imported labels have one): p_wins is '
'P(completion beats rival), 0.5 where the orders disagree on the winner, NULL where one has no answer';

CREATE VIEW win_rates AS
SELECT run_id, round, candidate_id, rival_id, value AS win_rate, low, high, n
FROM evaluations
WHERE metric = 'win_rate';
COMMENT ON VIEW win_rates IS 'Share of held-out prompts won over the rival (ties count half), with a 95 % interval';

CREATE VIEW results AS
SELECT
    run_id, round, candidate_id, rival_id, max(value) FILTER (metric = 'accepted') = 1 AS accepted,
    max(value) FILTER (metric = 'pass_rate') AS pass_rate, max(low) FILTER (metric = 'pass_rate') AS pass_low,
    max(high) FILTER (metric = 'pass_rate') AS pass_high, max(n) FILTER (metric = 'pass_rate') AS pass_n,
    max(value) FILTER (metric = 'win_rate') AS win_rate, max(low) FILTER (metric = 'win_rate') AS win_low,
    max(high) FILTER (metric = 'win_rate') AS win_high, max(n) FILTER (metric = 'win_rate') AS win_n,
    max(value) FILTER (metric = 'kl') AS kl, max(value) FILTER (metric = 'mean_tokens') AS mean_tokens
FROM evaluations
GROUP BY run_id, round, candidate_id, rival_id;
COMMENT ON VIEW results IS
'How each candidate did on held-out prompts: pass rate and win rate over the rival (ties count half) with 95 % '
'intervals. accepted is NULL for what was measured beside the loop';

CREATE VIEW round_summary AS
WITH played AS (
    SELECT run_id, round, policy_id, len(prompt_ids) AS prompts FROM rounds
    UNION ALL
    SELECT DISTINCT run_id, 0, candidate_id, 0 FROM evaluations WHERE round = 0
),
said AS (
    SELECT completion_id, CASE WHEN rival_id IS NULL THEN value END AS score FROM judgements WHERE value IS NOT NULL
    UNION ALL SELECT rival_id, NULL FROM judgements WHERE value IS NOT NULL AND rival_id IS NOT NULL
),
answers AS (  -- full ones: the partial ones of a tree, from which another goes on, are not judged
    SELECT c.completion_id, c.rowid AS row, c.run_id, c.round, len(c.token_ids) AS tokens,
           (c.finish_reason = 'length')::INTEGER AS truncated
    FROM completions c
    SEMI JOIN (FROM prompts WHERE split = 'train') p ON p.prompt_id = c.prompt_id
    ANTI JOIN (FROM completions WHERE parent_id IS NOT NULL) k ON k.parent_id = c.completion_id
),
judged AS (  -- a completion once, however many judges, members and orders it was put to
    SELECT a.run_id, a.round, a.row, avg(s.score) AS score FROM said s JOIN answers a USING (completion_id)
    GROUP BY a.run_id, a.round, a.row
),
scored AS (
    SELECT run_id, round, count(*) AS judged, avg(score) AS mean_score FROM judged GROUP BY run_id, round
),
sampled AS (
    SELECT run_id, round, count(*) AS completions, coalesce(any_value(s.judged), 0) AS judged,
           any_value(s.mean_score) AS mean_score, avg(tokens) AS mean_tokens, avg(truncated) AS truncated
    FROM answers LEFT JOIN scored s USING (run_id, round) GROUP BY run_id, round
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
'One row a round: what was sampled (full answers), judged and paired (prompts = paired + ties + identical + '
'abstained + filtered + failed), what learning did, and how the candidate did on held-out prompts. Round 0 is the '
'initial policy';

CREATE VIEW length_drift AS
WITH played AS (
    SELECT run_id, round FROM rounds UNION SELECT run_id, 0 FROM evaluations WHERE round = 0
),
sampled AS (
    SELECT c.run_id, c.round, count(*) AS completions, avg(len(c.token_ids)) AS mean_tokens,
           quantile_cont(len(c.token_ids), 0.9) AS p90_tokens, avg((c.finish_reason = 'length')::INTEGER) AS truncated
    FROM completions c
    SEMI JOIN (FROM prompts WHERE split = 'train') p ON p.prompt_id = c.prompt_id
    ANTI JOIN (FROM completions WHERE parent_id IS NOT NULL) k ON k.parent_id = c.completion_id
    WHERE c.origin = 'policy'
    GROUP BY c.run_id, c.round
),
paired AS (
    SELECT x.run_id, x.round, avg(len(c.token_ids)) FILTER (chosen) AS chosen_tokens,
           avg(len(c.token_ids)) FILTER (NOT chosen) AS rejected_tokens
    FROM (
        SELECT run_id, round, chosen_id AS completion_id, true AS chosen FROM pairs
        UNION ALL SELECT run_id, round, rejected_id, false FROM pairs
    ) x JOIN completions c USING (completion_id)
    GROUP BY x.run_id, x.round
),
measured AS (
    SELECT e.run_id, e.round, max(e.value) AS eval_tokens
    FROM evaluations e SEMI JOIN (FROM evaluations WHERE metric = 'accepted') g USING (run_id, round, candidate_id)
    WHERE e.metric = 'mean_tokens' GROUP BY e.run_id, e.round
)
SELECT
    run_id, round, s.completions, s.mean_tokens, s.p90_tokens, s.truncated,
    s.mean_tokens / first_value(s.mean_tokens IGNORE NULLS) OVER since AS growth,
    x.chosen_tokens, x.rejected_tokens, x.chosen_tokens / x.rejected_tokens AS chosen_ratio,
    m.eval_tokens, m.eval_tokens / first_value(m.eval_tokens IGNORE NULLS) OVER since AS eval_growth
FROM played
LEFT JOIN sampled s USING (run_id, round)
LEFT JOIN paired x USING (run_id, round)
LEFT JOIN measured m USING (run_id, round)
WINDOW since AS (PARTITION BY run_id ORDER BY round ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING);
COMMENT ON VIEW length_drift IS
'How long answers are, in tokens, round by round: those of the policy to train prompts, chosen beside rejected, and '
'those of the candidate to held-out prompts. growth divides by the first round that has any';

CREATE VIEW pair_texts AS
WITH scored AS (
    SELECT run_id, pair_id, avg(score) FILTER (chosen) AS chosen_score, avg(score) FILTER (NOT chosen) AS rejected_score
    FROM (
        SELECT x.run_id, x.pair_id, x.chosen, j.judge, avg(j.value) AS score
        FROM judgements j JOIN (
            SELECT run_id, pair_id, true AS chosen, chosen_id AS completion_id FROM pairs
            UNION ALL SELECT run_id, pair_id, false, rejected_id FROM pairs
        ) x USING (completion_id)
        WHERE j.rival_id IS NULL
        GROUP BY x.run_id, x.pair_id, x.chosen, j.judge
    )
    GROUP BY run_id, pair_id
)
SELECT
    x.pair_id, x.run_id, x.round, x.prompt_id,
    p.messages ->> '$[#-1].content' AS prompt,
    c.text AS chosen, r.text AS rejected, s.chosen_score, s.rejected_score,
    x.p_chosen, x.margin, x.weight, x.builder, x.chosen_id, x.rejected_id
FROM pairs x
JOIN prompts p USING (prompt_id)
JOIN completions c ON c.completion_id = x.chosen_id
JOIN completions r ON r.completion_id = x.rejected_id
LEFT JOIN scored s ON s.run_id = x.run_id AND s.pair_id = x.pair_id;
COMMENT ON VIEW pair_texts IS 'Every preference pair with its prompt, both texts and both scores';

CREATE VIEW pair_yield AS
WITH planned AS (
    SELECT run_id, round, unnest(list_distinct(prompt_ids)) AS prompt_id FROM rounds
),
settled AS (
    SELECT run_id, round, prompt_id, any_value(outcome) AS outcome, count(*) AS outcomes
    FROM outcomes GROUP BY run_id, round, prompt_id
),
made AS (
    SELECT run_id, round, prompt_id, count(pair_id) AS pairs, count(example_id) AS examples
    FROM (
        SELECT run_id, round, prompt_id, pair_id, NULL AS example_id FROM pairs
        UNION ALL SELECT run_id, round, prompt_id, NULL, example_id FROM examples
    )
    GROUP BY run_id, round, prompt_id
),
prompt_yield AS (
    SELECT run_id, round, prompt_id, p.prompt_id IS NOT NULL AS planned, s.outcome, coalesce(s.outcomes, 0) AS outcomes,
           coalesce(m.pairs, 0) AS pairs, coalesce(m.examples, 0) AS examples
    FROM planned p FULL JOIN settled s USING (run_id, round, prompt_id)
    LEFT JOIN made m USING (run_id, round, prompt_id)
),
counted AS (
    SELECT run_id, round, count(*) FILTER (planned) AS prompts,
           count(*) FILTER (outcome = 'paired') AS paired, count(*) FILTER (outcome = 'tie') AS ties,
           count(*) FILTER (outcome = 'identical') AS identical, count(*) FILTER (outcome = 'abstained') AS abstained,
           count(*) FILTER (outcome = 'filtered') AS filtered, count(*) FILTER (outcome = 'failed') AS failed,
           count(*) FILTER (outcomes = 0) AS open, sum(pairs)::BIGINT AS pairs, sum(examples)::BIGINT AS examples,
           count(*) FILTER (NOT planned) AS strays, count(*) FILTER (outcomes > 1) AS repeated,
           count(*) FILTER (outcome = 'paired' AND pairs + examples = 0) AS empty,
           count(*) FILTER (outcome <> 'paired' AND pairs + examples > 0) AS unexpected
    FROM prompt_yield GROUP BY run_id, round
)
SELECT
    run_id, round, prompts, paired, ties, identical, abstained, filtered, failed, open, paired / prompts AS share,
    pairs, examples,
    CASE WHEN strays + repeated + empty + unexpected > 0 OR (open > 0 AND u.update_id IS NOT NULL) THEN false
         WHEN open = 0 THEN prompts = paired + ties + identical + abstained + filtered + failed END AS holds,
    concat_ws('; ',
        CASE WHEN open > 0 AND u.update_id IS NULL THEN open || ' without an outcome yet'
             WHEN open > 0 THEN open || ' without an outcome though the round learned' END,
        CASE WHEN strays > 0 THEN strays || ' outcomes of prompts that the round did not plan' END,
        CASE WHEN repeated > 0 THEN repeated || ' prompts with several outcomes' END,
        CASE WHEN empty > 0 THEN empty || ' paired, but without a pair or an example' END,
        CASE WHEN unexpected > 0 THEN unexpected || ' not paired, but with a pair or an example' END
    ) AS found
FROM counted LEFT JOIN updates u USING (run_id, round);
COMMENT ON VIEW pair_yield IS
'What became of the prompts that a round planned: prompts = paired + ties + identical + abstained + filtered + '
'failed when none is open. holds says whether that is so (NULL: the round is still at it), found says what is wrong';

CREATE VIEW trained_on AS
WITH made AS (
    SELECT run_id, round, count(pair_id) AS pairs, count(example_id) AS examples,
           count(DISTINCT prompt_id) AS prompts
    FROM (
        SELECT run_id, round, prompt_id, pair_id, NULL AS example_id FROM pairs
        UNION ALL SELECT run_id, round, prompt_id, NULL, example_id FROM examples
    )
    GROUP BY run_id, round
),
named AS (
    SELECT w.update_id, count(*) AS pairs, count(DISTINCT x.prompt_id) AS prompts
    FROM update_pairs w LEFT JOIN pairs x USING (pair_id) GROUP BY w.update_id
)
SELECT
    u.run_id, u.round, u.algorithm, u.before_id, u.after_id,
    coalesce(u.reference_ids, CASE WHEN r.reference_id IS NOT NULL THEN [r.reference_id] END) AS reference_ids,
    coalesce(m.prompts, 0) + coalesce(n.prompts, 0) AS prompts, coalesce(m.pairs, 0) + coalesce(n.pairs, 0) AS pairs,
    coalesce(m.examples, 0) AS examples, u.n_examples, (u.metrics ->> 'loss')::DOUBLE AS loss, u.seconds,
    e.accepted, u.update_id
FROM updates u
LEFT JOIN rounds r USING (run_id, round)
LEFT JOIN made m USING (run_id, round)
LEFT JOIN named n USING (update_id)
LEFT JOIN (
    SELECT run_id, round, candidate_id, value = 1 AS accepted FROM evaluations WHERE metric = 'accepted'
) e ON e.run_id = u.run_id AND e.round = u.round AND e.candidate_id = u.after_id;
COMMENT ON VIEW trained_on IS
'What each update learned from: the pairs or single answers (examples) of its round, or those named for it; the '
'checkpoint before and after, and the references it compared with ([] where the method takes none). Rows are in '
'trained_rows';

CREATE VIEW trained_rows AS
WITH learned AS (
    SELECT u.update_id, 'pair' AS kind, x.pair_id AS id, x.prompt_id, x.chosen_id AS completion_id, x.rejected_id,
           x.margin AS value, x.weight, x.builder, u.run_id, u.round, u.before_id, u.after_id
    FROM updates u JOIN pairs x USING (run_id, round)
    UNION ALL
    SELECT u.update_id, 'pair', x.pair_id, x.prompt_id, x.chosen_id, x.rejected_id, x.margin, x.weight, x.builder,
           u.run_id, u.round, u.before_id, u.after_id
    FROM updates u JOIN update_pairs w USING (update_id) JOIN pairs x USING (pair_id)
    UNION ALL
    SELECT u.update_id, 'example', x.example_id, x.prompt_id, x.completion_id, NULL, x.reward, x.weight, x.builder,
           u.run_id, u.round, u.before_id, u.after_id
    FROM updates u JOIN examples x USING (run_id, round)
)
SELECT
    l.run_id, l.round, l.kind, p.messages ->> '$[#-1].content' AS prompt, l.value, l.weight, l.builder, l.id,
    l.completion_id, l.rejected_id, l.prompt_id, l.before_id, l.after_id, l.update_id
FROM learned l LEFT JOIN prompts p USING (prompt_id);
COMMENT ON VIEW trained_rows IS
'Each pair or single answer that an update learned from: completion_id is the chosen one of a pair, value its '
'margin, or the reward (or label) of an example';

CREATE VIEW decided_prompts AS
WITH apart AS (  -- how far apart a judge puts the answers to a prompt
    SELECT c.run_id, c.round, c.prompt_id, j.judge, max(j.value) - min(j.value) AS gap
    FROM judgements j JOIN completions c USING (completion_id)
    WHERE j.rival_id IS NULL AND j.value IS NOT NULL
    GROUP BY c.run_id, c.round, c.prompt_id, j.judge HAVING count(*) > 1
    UNION ALL
    SELECT c.run_id, c.round, c.prompt_id, d.judge, avg(abs(d.p_wins - 0.5))
    FROM duels d JOIN completions c USING (completion_id) WHERE d.p_wins IS NOT NULL
    GROUP BY c.run_id, c.round, c.prompt_id, d.judge
),
spread AS (
    SELECT run_id, round, prompt_id, count(*) AS judges,
           avg(CASE WHEN usual > 0 THEN gap / usual ELSE 0 END) AS spread
    FROM (SELECT *, avg(gap) OVER (PARTITION BY run_id, judge) AS usual FROM apart)
    GROUP BY run_id, round, prompt_id
),
said AS (
    SELECT x.run_id, x.round, x.prompt_id, j.judge,
           avg(j.value) FILTER (x.chosen) - avg(j.value) FILTER (NOT x.chosen) AS gap
    FROM judgements j JOIN (
        SELECT run_id, round, prompt_id, true AS chosen, chosen_id AS completion_id FROM pairs
        UNION ALL SELECT run_id, round, prompt_id, false, rejected_id FROM pairs
    ) x USING (completion_id)
    WHERE j.rival_id IS NULL AND j.value IS NOT NULL
    GROUP BY x.run_id, x.round, x.prompt_id, j.judge
),
contradicted AS (
    SELECT run_id, round, prompt_id, avg((gap < 0)::INTEGER) AS against FROM said WHERE gap IS NOT NULL
    GROUP BY run_id, round, prompt_id
),
paired AS (
    SELECT run_id, round, prompt_id, count(*) AS pairs, avg(margin) AS margin
    FROM pairs GROUP BY run_id, round, prompt_id
),
questions AS (
    SELECT prompt_id, split, messages ->> '$[#-1].content' AS prompt FROM prompts
)
SELECT
    s.run_id, s.round, p.split, p.prompt, s.spread, s.judges, o.outcome, coalesce(x.pairs, 0) AS pairs, x.margin,
    k.against, s.prompt_id
FROM spread s
JOIN questions p USING (prompt_id)
LEFT JOIN outcomes o USING (run_id, round, prompt_id)
LEFT JOIN paired x USING (run_id, round, prompt_id)
LEFT JOIN contradicted k USING (run_id, round, prompt_id);
COMMENT ON VIEW decided_prompts IS
'How far apart judges put the answers to a prompt in a round: spread is the gap between the best and the worst (or '
'how clear comparisons were) over what is usual for the judge in that run, the mean over judges; against is the '
'share of judges that score the rejected answer of a pair above the chosen one';

CREATE VIEW undecided_prompts AS
SELECT * FROM decided_prompts WHERE spread < 1;
COMMENT ON VIEW undecided_prompts IS
'The rows of decided_prompts whose answers judges tell apart less than is usual for them';

CREATE VIEW near_identical AS
WITH sketched AS (  -- the lowest and the highest hash of three tokens in a row; of an answer without tokens, its text
    SELECT row, run_id, list_min(triples) AS low, list_max(triples) AS high,
           CASE WHEN len(triples) = 0
                THEN hash(replace(replace(replace(lower(text), ' ', ''), '.', ''), chr(10), '')) END AS said
    FROM (
        SELECT rowid AS row, run_id, text,
               list_transform(token_ids, lambda token, i: hash(token, token_ids[i + 1], token_ids[i + 2])) AS triples
        FROM completions
    )
),
alike AS (
    SELECT run_id, min(row) AS first, list(row) AS rows
    FROM sketched GROUP BY run_id, low, high, said HAVING count(*) > 1
),
members AS (SELECT run_id, first, unnest(rows) AS row FROM alike),
measured AS (
    SELECT m.run_id, m.first, m.row, c.round, c.prompt_id, c.completion_id, c.text, f.text AS first_text,
           CASE WHEN c.text = f.text OR len(c.token_ids) = 0 THEN 1 ELSE
               len(list_intersect(string_split(lower(c.text), ' '), string_split(lower(f.text), ' ')))
               / len(list_distinct(string_split(lower(c.text || ' ' || f.text), ' '))) END AS overlap
    FROM members m JOIN completions c ON c.rowid = m.row JOIN completions f ON f.rowid = m.first
),
kinds AS (  -- what is too far from the first may have equals still
    SELECT * REPLACE (CASE WHEN overlap >= 0.8 THEN first_text ELSE text END AS first_text,
                      CASE WHEN overlap >= 0.8 THEN overlap ELSE 1 END AS overlap)
    FROM measured
)
SELECT
    run_id, count(*) AS completions, count(*) FILTER (text = first_text) AS identical, min(overlap) AS overlap,
    count(DISTINCT prompt_id) AS prompts, min(round) AS first_round, max(round) AS last_round, first_text AS text,
    list(completion_id ORDER BY row)[:10] AS completion_ids
FROM kinds
GROUP BY run_id, first, first_text HAVING count(*) > 1;
COMMENT ON VIEW near_identical IS
'Answers of a run that say nearly the same as the first of their kind: identical counts equal texts, all of which '
'are found; the others share at least 80 % of their words with it (overlap is the lowest share), and are found with '
'the square of the share of token triples that they have in common as chance. Answers without tokens are compared '
'but for case, spaces and full stops';

CREATE VIEW hacking_signs AS
WITH duelled AS (
    SELECT c.run_id, c.round, c.policy_id, c.prompt_id, d.judge, r.policy_id AS rival_id, avg(d.p_wins) AS value
    FROM duels d JOIN completions c USING (completion_id) JOIN completions r ON r.completion_id = d.rival_id
    WHERE d.p_wins IS NOT NULL AND c.policy_id <> r.policy_id
    GROUP BY ALL
),
asked AS (  -- one value a prompt: its answers are no independent trials; the judge '' counts tokens
    SELECT run_id, round, policy_id, prompt_id, judge, '' AS rival_id, mean_score AS value FROM prompt_scores
    UNION ALL FROM duelled
    UNION ALL SELECT DISTINCT run_id, round, rival_id, prompt_id, judge, rival_id, 0.5 FROM duelled
    UNION ALL
    SELECT run_id, round, policy_id, prompt_id, '' AS judge, '', avg(len(token_ids)) FROM completions GROUP BY ALL
),
sides AS (  -- who answered before and after each update; the candidate plays in a later round
    SELECT run_id, round, before_id AS policy_id, false AS after, round AS played FROM updates
    UNION ALL
    SELECT u.run_id, u.round, u.after_id, true, min(r.round)
    FROM updates u LEFT JOIN rounds r ON r.run_id = u.run_id AND r.policy_id = u.after_id AND r.round > u.round
    GROUP BY u.run_id, u.round, u.after_id
),
sided AS MATERIALIZED (
    SELECT s.run_id, s.round, p.split, a.judge, a.rival_id, a.prompt_id, s.after, avg(a.value) AS value
    FROM asked a JOIN prompts p USING (prompt_id) JOIN sides s USING (run_id, policy_id)
    WHERE p.split = 'eval' OR a.round = s.played
    GROUP BY s.run_id, s.round, p.split, a.judge, a.rival_id, a.prompt_id, s.after
),
paired AS (
    SELECT run_id, round, judge, prompt_id, avg(a.value - b.value) AS change, avg(b.value) AS before
    FROM (FROM sided WHERE after AND split = 'eval') a
    JOIN (FROM sided WHERE NOT after AND split = 'eval') b USING (run_id, round, judge, rival_id, prompt_id)
    GROUP BY run_id, round, judge, prompt_id
),
changes AS (
    SELECT run_id, round, judge, 'held-out' AS prompts, avg(change) AS change, avg(before) AS before,
           1.96 * stddev_samp(change) / sqrt(count(*)) AS half
    FROM paired GROUP BY run_id, round, judge
    UNION ALL
    SELECT run_id, round, judge, 'train', avg(value) FILTER (after) - avg(value) FILTER (NOT after),
           avg(value) FILTER (NOT after),
           1.96 * sqrt(var_samp(value) FILTER (after) / count(*) FILTER (after)
                       + var_samp(value) FILTER (NOT after) / count(*) FILTER (NOT after))
    FROM sided WHERE split = 'train' AND rival_id = '' GROUP BY run_id, round, judge
),
known AS MATERIALIZED (  -- held-out prompts are the same before and after, so they come first
    SELECT *, change - half AS low, change + half AS high FROM changes WHERE half IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY run_id, round, judge ORDER BY prompts) = 1
),
noted AS (SELECT DISTINCT run_id, judge FROM rounds WHERE judge IS NOT NULL),
learner AS (  -- by whose answers it was paired; else whom the config describes; else the only one there is
    FROM noted
    UNION ALL
    SELECT k.run_id, k.judge
    FROM (SELECT DISTINCT run_id, judge FROM sided WHERE judge <> '') k
    ANTI JOIN noted USING (run_id)
    JOIN runs r USING (run_id)
    LEFT JOIN judges j ON json(j.options) = json(r.config -> 'shape' -> 'judge')
    QUALIFY k.judge = j.judge OR (j.judge IS NULL AND count(*) OVER (PARTITION BY k.run_id) = 1)
),
scored AS (  -- one: weights may have changed under a name
    SELECT k.* FROM known k SEMI JOIN learner USING (run_id, judge)
    QUALIFY row_number() OVER (PARTITION BY k.run_id, k.round ORDER BY k.prompts, k.judge) = 1
),
others AS (
    SELECT k.* FROM known k ANTI JOIN learner USING (run_id, judge) WHERE k.judge <> ''
    QUALIFY row_number() OVER (PARTITION BY k.run_id, k.round ORDER BY k.high, k.judge) = 1
),
beside AS (
    SELECT s.run_id, s.round, k.judge, k.change AS score_change, k.low AS score_low, k.high AS score_high,
           k.prompts AS score_prompts,
           o.judge AS other_judge, o.change AS other_change, o.low AS other_low, o.high AS other_high,
           o.prompts AS other_prompts,
           t.before AS tokens_before, t.change AS tokens_change, t.low AS tokens_low, t.high AS tokens_high,
           t.prompts AS tokens_prompts,
           coalesce(o.high < 0, false) AS denied, coalesce(t.low > 0 AND t.change > 0.1 * t.before, false) AS longer
    FROM updates s
    LEFT JOIN scored k ON k.run_id = s.run_id AND k.round = s.round
    LEFT JOIN others o ON o.run_id = s.run_id AND o.round = s.round
    LEFT JOIN known t ON t.run_id = s.run_id AND t.round = s.round AND t.judge = ''
)
SELECT
    run_id, round, score_low > 0 AND (denied OR longer) AS hacking,
    CASE WHEN score_low IS NULL THEN 'no score before and after that can be compared'
         WHEN score_low <= 0 THEN 'the score does not rise beyond noise'
         WHEN denied AND longer THEN format(
             'score {:+.3g}, while {} says {:+.3g} and answers are {:.0f} % longer',
             score_change, other_judge, other_change, 100 * tokens_change / tokens_before)
         WHEN denied THEN format('score {:+.3g}, while {} says {:+.3g}', score_change, other_judge, other_change)
         WHEN longer THEN format(
             'score {:+.3g}, while answers are {:.0f} % longer', score_change, 100 * tokens_change / tokens_before)
         WHEN other_judge IS NULL THEN 'the score rises, answers are no longer; no other judge was asked'
         ELSE 'the score rises, and nothing speaks against it' END AS reason,
    * EXCLUDE (run_id, round, denied, longer)
FROM beside;
COMMENT ON VIEW hacking_signs IS
'Whether an update raised the score that learning uses while another judge, or the length of answers, says no: '
'changes from the policy before to the candidate with 95 % intervals, on held-out prompts, or where those were not '
'judged on the train prompts of this round and the next. Prompts are the trials. hacking: the score rises beyond '
'noise, and the other judge falls beyond noise or answers grow by over 10 %; NULL where the score cannot be '
'compared';

CREATE VIEW position_bias AS
SELECT
    d.judge, count(*) AS duels,
    avg(((p_shown_first - 0.5) * (p_shown_second - 0.5) < 0)::INTEGER) AS disagree,
    avg((p_shown_first > 0.5 AND p_shown_second < 0.5)::INTEGER) AS both_first,
    avg((p_shown_first < 0.5 AND p_shown_second > 0.5)::INTEGER) AS both_second,
    c.run_id
FROM duels d JOIN completions c USING (completion_id)
WHERE p_shown_first IS NOT NULL AND p_shown_second IS NOT NULL
GROUP BY d.judge, c.run_id;
COMMENT ON VIEW position_bias IS
'How often, in a run, a judge of pairs names another winner when the answers change places: the answer shown first '
'both times (both_first), or the one shown second (both_second)';

CREATE VIEW judge_agreement AS
WITH answered AS (
    SELECT DISTINCT run_id, round, prompt_id, policy_id FROM completions
),
drawn AS (  -- all prompts of a round, or 100 of each split
    SELECT a.*, row_number() OVER () AS number
    FROM answered a JOIN prompts p USING (prompt_id)
    QUALIFY row_number() OVER (PARTITION BY a.run_id, a.round, p.split ORDER BY md5(a.prompt_id), a.policy_id) <= 100
),
picked AS MATERIALIZED (
    SELECT d.number, c.run_id, c.completion_id, c.rowid AS row
    FROM completions c JOIN drawn d USING (run_id, round, prompt_id, policy_id)
),
scored AS MATERIALIZED (
    SELECT p.number, p.run_id, p.row, j.judge, avg(j.value) AS score
    FROM judgements j JOIN picked p USING (completion_id)
    WHERE j.rival_id IS NULL AND j.value IS NOT NULL
    GROUP BY p.number, p.run_id, p.row, j.judge
),
compared AS MATERIALIZED (  -- one direction for each two answers, whichever way a judge was asked
    SELECT c.run_id, d.judge, least(c.row, r.row) AS one, greatest(c.row, r.row) AS other,
           sign(avg(CASE WHEN c.row < r.row THEN d.p_wins ELSE 1 - d.p_wins END) - 0.5)::TINYINT AS verdict
    FROM duels d JOIN picked c USING (completion_id) JOIN picked r ON r.completion_id = d.rival_id
    WHERE d.p_wins IS NOT NULL
    GROUP BY ALL
),
verdicts AS MATERIALIZED (
    FROM compared
    UNION ALL
    SELECT a.run_id, a.judge, a.row, b.row, sign(a.score - b.score)::TINYINT
    FROM scored a JOIN scored b ON a.number = b.number AND a.judge = b.judge AND a.row < b.row
    ANTI JOIN compared d ON d.judge = a.judge AND d.one = a.row AND d.other = b.row
)
SELECT
    a.judge, b.judge AS other_judge, count(*) AS duels, avg((a.verdict = b.verdict)::INTEGER) AS agreement,
    avg((a.verdict = -b.verdict AND a.verdict <> 0)::INTEGER) AS opposed, a.run_id
FROM verdicts a JOIN verdicts b ON a.one = b.one AND a.other = b.other AND a.judge < b.judge
GROUP BY a.run_id, a.judge, b.judge;
COMMENT ON VIEW judge_agreement IS
'How often two judges name the same winner (or both a tie) of the same two answers of a run, and how often opposite '
'ones. Of each round up to 100 train prompts and 100 held-out ones are compared, drawn by the md5 of their id';

CREATE VIEW judge_costs AS
SELECT
    k.judge, k.model, count(*) AS calls, count(DISTINCT k.judgement_id) AS questions,
    count(*) FILTER (k.error <> '') AS failed, sum(k.prompt_tokens) AS prompt_tokens,
    sum(k.completion_tokens) AS completion_tokens, sum(k.cost) AS cost, sum(k.seconds) AS seconds, c.run_id
FROM judge_calls k
LEFT JOIN judgements j USING (judgement_id)
LEFT JOIN completions c USING (completion_id)
GROUP BY k.judge, k.model, c.run_id;
COMMENT ON VIEW judge_costs IS
'Calls, tokens and cost of each judge that asks a model, by the run whose answers it judged; cost is NULL where no '
'price was given';

CREATE VIEW lineage AS
WITH learned AS (  -- what an update learned from, and the answers in it
    SELECT pair_id AS id, 'pair' AS kind, run_id, round, unnest([chosen_id, rejected_id]) AS completion_id FROM pairs
    UNION ALL SELECT example_id, 'example', run_id, round, completion_id FROM examples
)
SELECT completion_id AS id, 'completion' AS kind, prompt_id AS cause_id, 'prompt' AS cause_kind FROM completions
UNION ALL SELECT completion_id, 'completion', policy_id, 'checkpoint' FROM completions WHERE policy_id <> ''
UNION ALL SELECT completion_id, 'completion', parent_id, 'completion' FROM completions WHERE parent_id IS NOT NULL
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
UNION ALL SELECT pair_id, 'pair', reference_sample_id, 'completion' FROM pairs
    WHERE reference_sample_id NOT IN (chosen_id, rejected_id)
UNION ALL SELECT example_id, 'example', completion_id, 'completion' FROM examples
UNION ALL SELECT l.id, l.kind, j.judgement_id, 'judgement'
    FROM learned l JOIN rounds r USING (run_id, round) JOIN judgements j USING (completion_id, judge)
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
