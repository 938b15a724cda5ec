-- What benchmarks/big_store.py adds: $n answers of 5 runs with 10 rounds each, every value a hash of its row.
-- Run 0 gets better in the eyes of both judges; in run 1 the score rises while the critic's falls; run 2 gets longer;
-- run 4 learns from single answers, and its last round is not paired yet.

CREATE MACRO name(kind, cause) AS kind || '_' || left(md5(kind || ' ' || cause), 20);
CREATE MACRO draw(n, cause, salt) AS (hash(cause, salt) % n)::BIGINT;
CREATE MACRO share(cause, salt) AS draw(1000000, cause, salt) / 1e6;
CREATE MACRO policy(run, round) AS name('checkpoint', run || ' ' || round);
CREATE MACRO answer(run, round, i) AS name('completion', run || ' ' || round || ' ' || i);
CREATE MACRO prompt(number, held_out) AS name('prompt', CASE WHEN held_out THEN 'eval ' ELSE 'train ' END || number);

CREATE TABLE size AS  -- prompts of a round, and held-out prompts, which the initial policy and every candidate answer
SELECT $n // 5000 AS held_out, ($n // 40 - 11 * ($n // 5000)) // 10 AS train;

CREATE TABLE words AS  -- syllables, so that texts look like text
SELECT list(a || b ORDER BY a, b) AS word
FROM (SELECT unnest(string_split('ba ce di fo gu he ji ko lu ma ne pi ro su ta ve wi xo yu za', ' ')) AS a),
     (SELECT unnest(string_split(
         'b cat den fir gol hum ing jar kel lop mur nes ont pax quil rid son ter und wex', ' ')) AS b);

CREATE MACRO runs() AS TABLE
SELECT 'run-' || r AS run_id, run_id AS name, r AS seed, 'sha-' || r AS config_sha256,
       '{"sparring": "0"}' AS versions, '{"rounds": 10, "shape": {"judge": {"kind": "reward"}}}' AS config
FROM range(5) t(r);

CREATE MACRO judges() AS TABLE
SELECT unnest(['reward', 'rules', 'critic', 'llm']) AS judge, judge AS kind, '{"kind": "' || judge || '"}' AS options,
       []::VARCHAR[] AS weights_sha256;

CREATE MACRO prompts() AS TABLE
SELECT prompt(i, split = 'eval') AS prompt_id, split, 'made up' AS source, '{}' AS meta,
       '[{"role": "user", "content": "Question ' || i || ': say something of ' || word[1 + draw(400, i, split)] || '."}]'
           AS messages
FROM words, size, (SELECT unnest(['train', 'eval']) AS split),
     LATERAL range(CASE split WHEN 'eval' THEN held_out ELSE 10 * train END) t(i);

CREATE MACRO checkpoints() AS TABLE
SELECT policy(r, k) AS checkpoint_id, 'run-' || r AS run_id, '/nowhere/' || r || '/' || k AS path,
       CASE WHEN k > 0 THEN policy(r, k - 1) END AS parent_id, sha256(r || ' ' || k) AS weights_sha256
FROM range(5) t(r), range(11) u(k);

CREATE MACRO rounds() AS TABLE
SELECT name('round', r || ' ' || k) AS round_id, 'run-' || r AS run_id, k::INTEGER AS round,
       policy(r, k - 1) AS policy_id, policy(r, greatest(k - 2, 0)) AS opponent_id, policy(r, k - 1) AS reference_id,
       policy(r, 0) AS initial_id,
       list_transform(range(size.train), lambda i: prompt((k - 1) * size.train + i, false)) AS prompt_ids
FROM size, range(5) t(r), range(1, 11) u(k);

CREATE MACRO updates() AS TABLE
SELECT name('update', r || ' ' || k) AS update_id, 'run-' || r AS run_id, k::INTEGER AS round,
       CASE WHEN r = 4 THEN 'grpo' ELSE 'dpo' END AS algorithm, policy(r, k - 1) AS before_id, policy(r, k) AS after_id,
       size.train::INTEGER AS n_examples, 60e0 AS seconds, '{"loss": 0.6, "accuracy": 0.7}' AS metrics,
       [policy(r, k - 1)] AS reference_ids
FROM size, range(5) t(r), range(1, 11) u(k)
WHERE NOT (r = 4 AND k = 10);

CREATE MACRO evaluations() AS TABLE
SELECT name('evaluation', concat_ws(' ', r, k, metric)) AS evaluation_id, 'run-' || r AS run_id, k::INTEGER AS round,
       policy(r, k) AS candidate_id, policy(r, 0) AS rival_id, metric,
       CASE metric WHEN 'accepted' THEN 1 WHEN 'kl' THEN 0.5 * k WHEN 'mean_tokens' THEN 32
           ELSE 0.5 + 0.03 * k END::DOUBLE AS value,
       CASE WHEN metric LIKE '%rate' THEN value - 0.02 END AS low,
       CASE WHEN metric LIKE '%rate' THEN value + 0.02 END AS high, size.held_out::INTEGER AS n
FROM size, range(5) t(r), range(11) u(k),
     (SELECT unnest(['accepted', 'pass_rate', 'win_rate', 'kl', 'mean_tokens']) AS metric)
WHERE NOT (r = 4 AND k = 10);

-- The answers of one block: those of a round's policy to its train prompts, and of its candidate to the held-out ones.
-- One in 24 says what the one before it says, a few of these in other letters or with another last word.
CREATE MACRO answers(run, round) AS TABLE
SELECT i, i // 8 AS group_number, i % 8 AS sample, answer(run, round, i) AS completion_id,
       i // 8 >= trained AS is_held_out, run || ' ' || round || ' ' || i // 8 AS group_key,
       CASE WHEN is_held_out THEN prompt(i // 8 - trained, true)
            ELSE prompt((round - 1) * trained + i // 8, false) END AS prompt_id,
       policy(run, CASE WHEN is_held_out THEN round ELSE round - 1 END) AS policy_id,
       CASE WHEN i % 8 > 0 AND draw(120, completion_id, 'copy') < 6 THEN i - 1 ELSE i END AS spoken,
       draw(120, completion_id, 'copy') AS copied,
       24 + draw(17, answer(run, round, spoken), 'length') + CASE WHEN run = 2 THEN 2 * round ELSE 0 END AS length
FROM (SELECT i, CASE WHEN round = 0 THEN 0 ELSE size.train END AS trained
      FROM size, LATERAL range(8 * (size.held_out + CASE WHEN round = 0 THEN 0 ELSE size.train END)) t(i));

CREATE MACRO completions(run, round) AS TABLE
SELECT completion_id, 'run-' || run AS run_id, round::INTEGER AS round, prompt_id, policy_id,
       sample::INTEGER AS sample, 'policy' AS origin,
       CASE WHEN spoken < i AND copied = 4 THEN upper(said) || '!' WHEN spoken < i AND copied = 5 THEN said || ' indeed'
            ELSE said END AS text,
       list_transform(range(length), lambda k: draw(49152, spoken, k + 100 * (run * 11 + round))::INTEGER) ||
           CASE WHEN spoken < i AND copied IN (4, 5) THEN [99]::INTEGER[] ELSE []::INTEGER[] END AS token_ids,
       list_transform(range(len(token_ids)), lambda k: (-3.0 * draw(4096, i, k) / 4096)::FLOAT) AS logprobs,
       CASE WHEN draw(50, completion_id, 'cut') = 0 THEN 'length' ELSE 'stop' END AS finish_reason,
       1e0 AS temperature, 1e0 AS top_p, i::BIGINT AS seed
FROM (SELECT *, array_to_string(list_transform(
          range(length), lambda k: word[1 + draw(400, spoken, k + 100 * (run * 11 + round))]), ' ') AS said
      FROM answers(run, round), words)
ORDER BY i;

CREATE MACRO value_of(judge, run, round, id) AS
CASE judge
    WHEN 'reward' THEN 0.1 * round + share(id, 'reward')
    WHEN 'rules' THEN CASE WHEN share(id, 'silent') > 0.02 THEN draw(3, id, 'rules') / 2 END
    WHEN 'critic' THEN CASE WHEN share(id, 'silent') < 0.95
        THEN 3 + draw(5, id, 'critic') + CASE run WHEN 1 THEN -0.2 ELSE 0.2 END * round END
    ELSE share(id, 'llm') END::DOUBLE;

-- Four a completion. The judge `llm` compares neighbours in both orders in every fourth group, and scores the others.
-- The reward is of the policy that answered: that of the round before for train prompts.
CREATE MACRO judgements(run, round) AS TABLE
SELECT name('judgement', judge || a.completion_id) AS judgement_id, judge,
       CASE WHEN duels AND i % 2 = 1 THEN answer(run, round, i - 1) ELSE a.completion_id END AS completion_id,
       CASE WHEN duels AND i % 2 = 1 THEN a.completion_id WHEN duels THEN answer(run, round, i + 1) END AS rival_id,
       '' AS member, '' AS principle, CASE WHEN duels THEN i % 2 ELSE 0 END::INTEGER AS "order",
       value_of(judge, run, CASE WHEN is_held_out THEN round ELSE round - 1 END, a.completion_id) AS value,
       '' AS rationale, 'answered' AS status
FROM answers(run, round) a, (SELECT unnest(['reward', 'rules', 'critic', 'llm']) AS judge) j,
     LATERAL (SELECT group_number % 4 = 0 AND judge = 'llm' AS duels)
ORDER BY i;

CREATE MACRO judge_calls(run, round) AS TABLE
SELECT name('judge_call', judgement_id) AS judge_call_id, judge, judgement_id, 1 AS attempt, 'some-model' AS model,
       '{"winner": "A"}' AS reply,
       CASE WHEN draw(100, judgement_id, 'error') = 0 THEN 'no winner named' ELSE '' END AS error,
       400 AS prompt_tokens, 12 AS completion_tokens, 1e-4 AS cost, 4e-1 AS seconds
FROM judgements(run, round) WHERE rival_id IS NOT NULL;

CREATE MACRO groups(run, round) AS TABLE
SELECT *, CASE WHEN drawn < 80 THEN 'paired' WHEN drawn < 88 THEN 'tie' WHEN drawn < 92 THEN 'identical'
               WHEN drawn < 96 THEN 'abstained' WHEN drawn < 99 THEN 'filtered' ELSE 'failed' END AS outcome
FROM (SELECT *, draw(100, group_key, 'outcome') AS drawn FROM answers(run, round)
      WHERE NOT is_held_out AND sample = 0 AND NOT (run = 4 AND round = 10 AND group_number % 2 = 0));

CREATE MACRO outcomes(run, round) AS TABLE
SELECT name('outcome', group_key) AS outcome_id, 'run-' || run AS run_id, round::INTEGER AS round, prompt_id, outcome,
       '' AS reason
FROM groups(run, round);

CREATE MACRO pairs(run, round) AS TABLE
SELECT name('pair', group_key) AS pair_id, 'run-' || run AS run_id, round::INTEGER AS round, prompt_id,
       answer(run, round, i + drawn % 8) AS chosen_id, answer(run, round, i + (drawn + 1) % 8) AS rejected_id,
       1e0 AS p_chosen, share(group_key, 'margin') AS margin, 1e0 AS weight, 'best_worst' AS builder
FROM groups(run, round) WHERE outcome = 'paired' AND run < 4;

CREATE MACRO examples(run, round) AS TABLE
SELECT name('example', a.completion_id) AS example_id, 'run-' || run AS run_id, round::INTEGER AS round, a.prompt_id,
       a.completion_id, value_of('reward', run, round - 1, a.completion_id) AS reward, 1e0 AS weight, 'group' AS builder
FROM answers(run, round) a SEMI JOIN (FROM groups(run, round) WHERE outcome = 'paired') g USING (group_key)
WHERE run = 4;
