-- What version 2 could store beside that: a judge of pairs with what it cost, and a reward model that learned from a pair.
INSERT INTO judges (judge, kind, options, weights_sha256) VALUES
    ('duel', 'llm', '{"model": "m"}', []),
    ('rules', 'rules', '{}', []),
    ('reward', 'reward_model', '{}', ['wr']);
INSERT INTO judgements (judgement_id, judge, completion_id, rival_id, member, principle, "order", value, rationale) VALUES
    ('judgement_d0', 'duel', 'completion_a0', 'completion_a1', '', 'true', 0, 0.75, 'a bird'),
    ('judgement_d1', 'duel', 'completion_a0', 'completion_a1', '', 'true', 1, 0.25, ''),
    ('judgement_d2', 'duel', 'completion_b0', 'completion_b1', '', 'true', 0, 1, ''),
    ('judgement_d3', 'duel', 'completion_b0', 'completion_b1', '', 'true', 1, NULL, 'refused');
INSERT INTO judge_calls (judge_call_id, judge, judgement_id, attempt, model, reply, error, prompt_tokens,
                         completion_tokens, cost, seconds) VALUES
    ('call_0', 'duel', 'judgement_d0', 1, 'm', '{"p": 0.75}', '', 20, 5, 0.25, 0.5),
    ('call_1', 'duel', 'judgement_d1', 1, 'm', '{"p": 0.25}', '', 20, 5, 0.25, 0.5),
    ('call_2', 'duel', 'judgement_d3', 1, 'm', NULL, 'timeout', NULL, NULL, NULL, 9);
INSERT INTO runs (run_id, name, seed, config, config_sha256, versions, created_at) VALUES
    ('reward-1', 'reward', 0, '{"kind": "reward"}', 'decade', '{}', '2026-01-03 03:04:05+00');
INSERT INTO checkpoints (checkpoint_id, run_id, path, parent_id, weights_sha256) VALUES
    ('checkpoint_b', 'reward-1', '/old/model', NULL, 'w0'),
    ('checkpoint_r', 'reward-1', '/old/runs/reward-1/model', 'checkpoint_b', 'wr');
INSERT INTO updates (update_id, run_id, round, algorithm, before_id, after_id, n_examples, seconds, metrics) VALUES
    ('update_r', 'reward-1', 1, 'reward', 'checkpoint_b', 'checkpoint_r', 1, 2.5, '{"loss": 0.5}');
INSERT INTO update_pairs (update_pair_id, update_id, pair_id) VALUES ('update_pair_r', 'update_r', 'pair_a');
