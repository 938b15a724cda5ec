-- What version 4 could store beside that: a round of single answers, one of them from a tree, and a filtered prompt.
INSERT INTO rounds (round_id, run_id, round, policy_id, opponent_id, reference_id, initial_id, prompt_ids) VALUES
    ('round_2', 'old-1', 2, 'checkpoint_0', 'checkpoint_1', 'checkpoint_0', 'checkpoint_0', ['prompt_a', 'prompt_b']);
INSERT INTO completions (completion_id, run_id, round, prompt_id, policy_id, sample, origin, text, token_ids, logprobs,
                         finish_reason, temperature, top_p, seed, parent_id) VALUES
    ('completion_a2', 'old-1', 2, 'prompt_a', 'checkpoint_0', 0, 'policy', 'a wr', [5], [-0.5], 'stop', 1, 1, 1, NULL),
    ('completion_a3', 'old-1', 2, 'prompt_a', 'checkpoint_0', 1, 'policy', 'a wren', [5, 4], [-0.5, -1], 'stop', 1, 1, 2,
     'completion_a2'),
    ('completion_b2', 'old-1', 2, 'prompt_b', '', 0, 'dataset', 'yes', [8], [], 'stop', 0, 1, 0, NULL);
INSERT INTO judgements (judgement_id, judge, completion_id, rival_id, member, principle, "order", value, rationale) VALUES
    ('judgement_a3', 'rules', 'completion_a3', NULL, '', '', 0, 1, ''),
    ('judgement_b2', 'rules', 'completion_b2', NULL, '', '', 0, 1, '');
INSERT INTO outcomes (outcome_id, run_id, round, prompt_id, outcome, reason) VALUES
    ('outcome_a2', 'old-1', 2, 'prompt_a', 'paired', ''),
    ('outcome_b2', 'old-1', 2, 'prompt_b', 'filtered', 'too easy');
INSERT INTO examples (example_id, run_id, round, prompt_id, completion_id, reward, weight, builder) VALUES
    ('example_a3', 'old-1', 2, 'prompt_a', 'completion_a3', 1, 1, 'group');
INSERT INTO logprobs (logprob_id, completion_id, weights_sha256, value, n_tokens, token_logprobs) VALUES
    ('logprob_a3', 'completion_a3', 'w0', -1.5, 2, [-0.5, -1]);
INSERT INTO checkpoints (checkpoint_id, run_id, path, parent_id, weights_sha256) VALUES
    ('checkpoint_2', 'old-1', '/old/runs/old-1/round-0002', 'checkpoint_0', 'w2');
INSERT INTO updates (update_id, run_id, round, algorithm, before_id, after_id, n_examples, seconds, metrics,
                     reference_ids) VALUES
    ('update_2', 'old-1', 2, 'grpo', 'checkpoint_0', 'checkpoint_2', 1, 2.5, '{"loss": 0.25}', ['checkpoint_0']);
