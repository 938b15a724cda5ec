"""The queries of a report. `$runs` is a list of run ids. Shares are counts, from which intervals are computed."""

RUNS = """
SELECT run_id, name, seed, config, config_sha256, versions,
       CASE kind WHEN 'loop' THEN 'self-play' ELSE kind END AS kind,
       strftime(created_at AT TIME ZONE 'UTC', '%Y-%m-%d %H:%M UTC') AS started
FROM runs WHERE list_contains($runs, run_id)
"""

# A round starts from the policy that another round ended with: `from_round`, 0 for the initial policy.
ROUNDS = """
WITH gated AS (
    SELECT run_id, round, candidate_id, value = 1 AS accepted FROM evaluations
    WHERE metric = 'accepted' AND list_contains($runs, run_id)
),
played AS (
    SELECT run_id, round, policy_id, len(prompt_ids) AS prompts FROM rounds WHERE list_contains($runs, run_id)
    UNION ALL SELECT run_id, 0, candidate_id, 0 FROM gated WHERE round = 0
),
origin AS (
    SELECT p.run_id, p.round, max(u.round) AS from_round
    FROM played p JOIN updates u ON u.run_id = p.run_id AND u.after_id = p.policy_id AND u.round < p.round
    GROUP BY ALL
),
sampled AS (
    SELECT c.run_id, c.round, count(*) AS completions, avg(len(c.token_ids)) AS mean_tokens
    FROM completions c JOIN prompts p ON p.prompt_id = c.prompt_id AND p.split = 'train'
    ANTI JOIN completions k ON k.parent_id = c.completion_id
    WHERE list_contains($runs, c.run_id) GROUP BY ALL
),
became AS (
    SELECT run_id, round, count(*) FILTER (outcome = 'paired') AS paired, count(*) FILTER (outcome = 'tie') AS tie,
           count(*) FILTER (outcome = 'identical') AS identical, count(*) FILTER (outcome = 'abstained') AS abstained,
           count(*) FILTER (outcome = 'filtered') AS filtered, count(*) FILTER (outcome = 'failed') AS failed
    FROM outcomes WHERE list_contains($runs, run_id) GROUP BY ALL
),
made AS (
    SELECT run_id, round, count(*) AS pairs FROM pairs WHERE list_contains($runs, run_id) GROUP BY ALL
)
SELECT p.run_id, p.round, p.policy_id, coalesce(o.from_round, 0) AS from_round,
       coalesce(u.after_id, g.candidate_id) AS candidate_id, k.parent_id, g.accepted, x.reason AS removed,
       p.prompts, s.completions, s.mean_tokens, m.pairs, b.paired, b.tie, b.identical, b.abstained, b.filtered,
       b.failed,
       u.algorithm, u.n_examples, u.seconds
FROM played p
LEFT JOIN origin o USING (run_id, round)
LEFT JOIN gated g USING (run_id, round)
LEFT JOIN sampled s USING (run_id, round)
LEFT JOIN became b USING (run_id, round)
LEFT JOIN made m USING (run_id, round)
LEFT JOIN updates u USING (run_id, round)
LEFT JOIN checkpoints k ON k.checkpoint_id = coalesce(u.after_id, g.candidate_id)
LEFT JOIN removals x ON x.checkpoint_id = k.checkpoint_id
ORDER BY p.run_id, p.round
"""

# Metrics of the gated candidates; without a gate (a reward model's training), of everything that was measured.
METRICS = """
WITH gated AS (SELECT run_id, round, candidate_id FROM evaluations WHERE metric = 'accepted')
SELECT e.run_id, e.round, e.candidate_id, e.rival_id, e.metric, e.value, e.low, e.high, e.n
FROM evaluations e LEFT JOIN gated g USING (run_id, round, candidate_id)
WHERE list_contains($runs, e.run_id) AND e.metric <> 'accepted'
AND (g.run_id IS NOT NULL OR NOT EXISTS (FROM gated h WHERE h.run_id = e.run_id))
ORDER BY e.run_id, e.metric, e.round
"""

# Rounds whose KL was measured before there were divergences: the mean of log(policy / initial) along the answers.
OLD_KL = """
SELECT e.run_id, e.round FROM evaluations e
ANTI JOIN (
    SELECT c.run_id, c.round, c.policy_id AS candidate_id FROM divergences JOIN completions c USING (completion_id)
    WHERE list_contains($runs, c.run_id)
) d USING (run_id, round, candidate_id)
WHERE list_contains($runs, e.run_id) AND e.metric = 'kl' ORDER BY e.run_id, e.round
"""

# Optimizer steps counted over all rounds of a run. A point is the mean of `width` steps, with their 10th and 90th
# percentile; no point spans two rounds. `smooth` is the running mean over about a quarter of a round.
STEPS = """
WITH numbered AS (
    SELECT u.run_id, u.round, s.metrics, row_number() OVER (PARTITION BY u.run_id ORDER BY u.round, s.step) AS nth,
           ceil(count(*) OVER (PARTITION BY u.run_id) / $points)::BIGINT AS width
    FROM update_steps s JOIN updates u USING (update_id) WHERE list_contains($runs, u.run_id)
),
named AS (
    SELECT n.run_id, n.round, n.nth, n.width, m.key AS metric, TRY_CAST(m.value AS DOUBLE) AS value
    FROM numbered n, json_each(n.metrics) m
)
SELECT run_id, metric, round, step, value, low, high, n,
       avg(value) OVER (
           PARTITION BY run_id, metric, round ORDER BY step ROWS BETWEEN reach PRECEDING AND reach FOLLOWING
       ) AS smooth
FROM (
    SELECT run_id, metric, round, avg(nth) AS step, avg(value) AS value, quantile_cont(value, 0.1) AS low,
           quantile_cont(value, 0.9) AS high, count(*) AS n,
           count(*) OVER (PARTITION BY run_id, metric, round) // 8 AS reach
    FROM named WHERE isfinite(value) GROUP BY run_id, metric, round, (nth - 1) // width
)
ORDER BY run_id, metric, step
"""

UPDATES = """
SELECT u.run_id, u.round, u.algorithm, u.seconds, u.n_examples, count(s.update_step_id) AS steps
FROM updates u LEFT JOIN update_steps s USING (update_id) WHERE list_contains($runs, u.run_id)
GROUP BY ALL ORDER BY u.run_id, u.round
"""

DECISIONS = """
SELECT d.run_id, d.round, d.number, d.kind, d.policy_id, coalesce(max(u.round), 0) AS policy_round, d.reason,
       d.decided_by, strftime(d.decided_at AT TIME ZONE 'UTC', '%Y-%m-%d %H:%M UTC') AS decided_at
FROM decisions d LEFT JOIN updates u ON u.run_id = d.run_id AND u.after_id = d.policy_id
WHERE list_contains($runs, d.run_id)
GROUP BY ALL ORDER BY d.run_id, d.round, d.number
"""

STOPS = """
SELECT run_id, round, rule, found, bound, message,
       strftime(stopped_at AT TIME ZONE 'UTC', '%Y-%m-%d %H:%M UTC') AS stopped_at
FROM stops WHERE list_contains($runs, run_id) ORDER BY run_id, round, stops.stopped_at, stop_id
"""

JUDGES = """
WITH said AS (
    SELECT c.run_id, j.judge, j.judgement_id, j.value FROM judgements j JOIN completions c USING (completion_id)
    WHERE list_contains($runs, c.run_id)
),
paid AS (
    SELECT s.run_id, s.judge, count(*) AS calls, count(*) FILTER (k.error <> '') AS failed_calls,
           sum(k.prompt_tokens)::BIGINT AS prompt_tokens, sum(k.completion_tokens)::BIGINT AS completion_tokens,
           sum(k.cost) AS cost, sum(k.seconds) AS seconds
    FROM said s JOIN judge_calls k USING (judgement_id) GROUP BY ALL
)
SELECT run_id, judge, any_value(i.kind) AS kind, count(*) AS judgements, count(*) - count(value) AS without_answer,
       any_value(COLUMNS(p.* EXCLUDE (run_id, judge)))
FROM said LEFT JOIN judges i USING (judge) LEFT JOIN paid p USING (run_id, judge)
GROUP BY run_id, judge ORDER BY run_id, judge
"""

# Like the view position_bias, by run and as counts.
POSITION = """
SELECT c.run_id, d.judge, count(*) AS duels,
       count(*) FILTER (p_shown_first > 0.5 AND p_shown_second < 0.5) AS both_first,
       count(*) FILTER (p_shown_first < 0.5 AND p_shown_second > 0.5) AS both_second
FROM duels d JOIN completions c USING (completion_id)
WHERE list_contains($runs, c.run_id) AND p_shown_first IS NOT NULL AND p_shown_second IS NOT NULL
GROUP BY ALL ORDER BY c.run_id, d.judge
"""

# Like the view judge_agreement, by run and as counts.
AGREEMENT = """
WITH mine AS (
    SELECT completion_id, run_id, round, prompt_id, policy_id FROM completions WHERE list_contains($runs, run_id)
),
verdicts AS (
    SELECT m.run_id, d.judge, d.completion_id, d.rival_id, sign(avg(d.p_wins) - 0.5) AS verdict
    FROM duels d JOIN mine m USING (completion_id) WHERE d.p_wins IS NOT NULL GROUP BY ALL
    UNION ALL
    SELECT c.run_id, a.judge, a.completion_id, b.completion_id, sign(a.score - b.score)
    FROM scores a JOIN mine c ON c.completion_id = a.completion_id
    JOIN mine d ON d.prompt_id = c.prompt_id AND d.run_id = c.run_id AND d.round = c.round
        AND d.policy_id = c.policy_id AND c.completion_id < d.completion_id
    JOIN scores b ON b.judge = a.judge AND b.completion_id = d.completion_id
    WHERE a.score IS NOT NULL AND b.score IS NOT NULL
),
ordered AS (
    SELECT run_id, judge, least(completion_id, rival_id) AS one, greatest(completion_id, rival_id) AS other,
           any_value(CASE WHEN completion_id < rival_id THEN verdict ELSE -verdict END) AS verdict
    FROM verdicts GROUP BY ALL
)
SELECT a.run_id, a.judge AS judge, b.judge AS other_judge, count(*) AS duels,
       count(*) FILTER (a.verdict = b.verdict) AS agreed,
       count(*) FILTER (a.verdict = -b.verdict AND a.verdict <> 0) AS opposed
FROM ordered a JOIN ordered b ON a.run_id = b.run_id AND a.one = b.one AND a.other = b.other AND a.judge < b.judge
GROUP BY ALL ORDER BY ALL
"""

# Drawn by the hash of their ids: one pair from each run and round, then another one from each, up to $pairs.
PAIRS = """
WITH drawn AS (
    SELECT pair_id, row_number() OVER (PARTITION BY run_id, round ORDER BY md5(pair_id)) AS turn
    FROM pairs WHERE list_contains($runs, run_id)
    ORDER BY turn, md5(pair_id) LIMIT $pairs
),
picked AS (SELECT x.* FROM pairs x SEMI JOIN drawn USING (pair_id)),
scored AS (
    SELECT completion_id, avg(value) AS score FROM judgements
    WHERE rival_id IS NULL AND completion_id IN (SELECT unnest([chosen_id, rejected_id]) FROM picked)
    GROUP BY ALL
)
SELECT x.pair_id, x.run_id, x.round, x.chosen_id, x.rejected_id, p.messages,
       left(c.text, $characters) AS chosen, length(c.text) AS chosen_length, cs.score AS chosen_score,
       left(r.text, $characters) AS rejected, length(r.text) AS rejected_length, rs.score AS rejected_score,
       x.p_chosen, x.margin, x.weight, x.builder
FROM picked x JOIN prompts p USING (prompt_id)
JOIN completions c ON c.completion_id = x.chosen_id
JOIN completions r ON r.completion_id = x.rejected_id
LEFT JOIN scored cs ON cs.completion_id = x.chosen_id
LEFT JOIN scored rs ON rs.completion_id = x.rejected_id
ORDER BY x.run_id, x.round, md5(x.pair_id)
"""

# The parts of a run as they are; STEPS also needs $points.
PARTS = {
    "rounds": ROUNDS, "metrics": METRICS, "updates": UPDATES, "steps": STEPS, "decisions": DECISIONS, "stops": STOPS,
    "judges": JUDGES, "old_kl": OLD_KL,
}  # fmt: skip
