-- What a run of one round stored under schema version 1: a pair, a tie, a prompt without an answer of the judge.
INSERT INTO runs (run_id, name, seed, config, config_sha256, versions, created_at) VALUES
    ('old-1', 'old', 7, '{"rounds": 1, "shape": {"seed": 7}}', 'c0ffee', '{"sparring": "0.1.0"}', '2026-01-02 03:04:05+00');
INSERT INTO checkpoints (checkpoint_id, run_id, path, parent_id, weights_sha256) VALUES
    ('checkpoint_0', 'old-1', '/old/model', NULL, 'w0'),
    ('checkpoint_1', 'old-1', '/old/runs/old-1/round-0001', 'checkpoint_0', 'w1');
INSERT INTO prompts (prompt_id, messages, split, source, meta) VALUES
    ('prompt_a', '[{"content": "Name a bird.", "role": "user"}]', 'train', 'train.jsonl', '{"max_words": 3}'),
    ('prompt_b', '[{"content": "Say yes.", "role": "user"}]', 'train', 'train.jsonl', '{}'),
    ('prompt_c', '[{"content": "Go on.", "role": "user"}]', 'train', 'train.jsonl', '{}'),
    ('prompt_e', '[{"content": "Name a fish.", "role": "user"}]', 'eval', 'eval.jsonl', '{}');
INSERT INTO rounds (round_id, run_id, round, policy_id, opponent_id, reference_id, initial_id, prompt_ids) VALUES
    ('round_1', 'old-1', 1, 'checkpoint_0', 'checkpoint_0', 'checkpoint_0', 'checkpoint_0',
     ['prompt_b', 'prompt_a', 'prompt_c']);
INSERT INTO completions (completion_id, run_id, round, prompt_id, policy_id, sample, origin, text, token_ids, logprobs,
                         finish_reason, temperature, top_p, seed) VALUES
    ('completion_a0', 'old-1', 1, 'prompt_a', 'checkpoint_0', 0, 'policy', 'a robin', [5, 6], [-0.5, -0.25], 'stop', 1, 1, 1),
    ('completion_a1', 'old-1', 1, 'prompt_a', 'checkpoint_0', 1, 'policy', 'no', [7], [-1.5], 'stop', 1, 1, 2),
    ('completion_b0', 'old-1', 1, 'prompt_b', 'checkpoint_0', 0, 'policy', 'yes', [8], [-0.125], 'stop', 1, 1, 3),
    ('completion_b1', 'old-1', 1, 'prompt_b', 'checkpoint_0', 1, 'policy', 'yes!', [8, 9], [-0.125, -2], 'length', 1, 1, 4),
    ('completion_c0', 'old-1', 1, 'prompt_c', 'checkpoint_0', 0, 'policy', 'one', [4], [-1], 'stop', 1, 1, 5),
    ('completion_e0', 'old-1', 0, 'prompt_e', 'checkpoint_0', 0, 'policy', 'a cod', [3, 2], [-1, -1], 'stop', 1, 1, 6),
    ('completion_e1', 'old-1', 1, 'prompt_e', 'checkpoint_1', 0, 'policy', 'a hake', [3, 1], [-1, -1], 'stop', 1, 1, 7);
INSERT INTO judgements (judgement_id, judge, completion_id, rival_id, member, principle, "order", value, rationale) VALUES
    ('judgement_a0', 'rules', 'completion_a0', NULL, '', '', 0, 1, ''),
    ('judgement_a1', 'rules', 'completion_a1', NULL, '', '', 0, 0, 'no bird'),
    ('judgement_b0', 'rules', 'completion_b0', NULL, '', '', 0, 0.5, ''),
    ('judgement_b1', 'rules', 'completion_b1', NULL, '', '', 0, 0.5, ''),
    ('judgement_c0', 'rules', 'completion_c0', NULL, '', '', 0, NULL, 'no rule'),
    ('judgement_e0', 'rules', 'completion_e0', NULL, '', '', 0, 0, ''),
    ('judgement_e1', 'rules', 'completion_e1', NULL, '', '', 0, 1, '');
INSERT INTO outcomes (outcome_id, run_id, round, prompt_id, outcome, reason) VALUES
    ('outcome_a', 'old-1', 1, 'prompt_a', 'paired', ''),
    ('outcome_b', 'old-1', 1, 'prompt_b', 'tie', 'all 0.5'),
    ('outcome_c', 'old-1', 1, 'prompt_c', 'abstained', 'no score');
INSERT INTO pairs (pair_id, run_id, round, prompt_id, chosen_id, rejected_id, p_chosen, margin, weight, builder,
                   reference_sample_id) VALUES
    ('pair_a', 'old-1', 1, 'prompt_a', 'completion_a0', 'completion_a1', 1, 1, 1, 'best_worst', NULL);
INSERT INTO logprobs (logprob_id, completion_id, weights_sha256, value, n_tokens) VALUES
    ('logprob_a0', 'completion_a0', 'w0', -0.75, 2),
    ('logprob_a1', 'completion_a1', 'w0', -1.5, 1);
INSERT INTO updates (update_id, run_id, round, algorithm, before_id, after_id, n_examples, seconds, metrics) VALUES
    ('update_1', 'old-1', 1, 'dpo', 'checkpoint_0', 'checkpoint_1', 1, 2.5, '{"loss": 0.625, "accuracy": 1.0}');
INSERT INTO update_steps (update_step_id, update_id, step, metrics) VALUES
    ('update_step_1', 'update_1', 1, '{"loss": 0.625}');
INSERT INTO evaluations (evaluation_id, run_id, round, candidate_id, rival_id, metric, value, low, high, n) VALUES
    ('evaluation_0', 'old-1', 0, 'checkpoint_0', 'checkpoint_0', 'pass_rate', 0, 0, 0.75, 1),
    ('evaluation_1', 'old-1', 0, 'checkpoint_0', 'checkpoint_0', 'accepted', 1, NULL, NULL, 1),
    ('evaluation_2', 'old-1', 1, 'checkpoint_1', 'checkpoint_0', 'pass_rate', 1, 0.25, 1, 1),
    ('evaluation_3', 'old-1', 1, 'checkpoint_1', 'checkpoint_0', 'win_rate', 1, 0.25, 1, 1),
    ('evaluation_4', 'old-1', 1, 'checkpoint_1', 'checkpoint_0', 'kl', 0.5, NULL, NULL, 1),
    ('evaluation_5', 'old-1', 1, 'checkpoint_1', 'checkpoint_0', 'accepted', 1, NULL, NULL, 1);
