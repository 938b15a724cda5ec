-- What version 3 could store beside that: a decision, a rule that stopped the run, and a checkpoint without files.
INSERT INTO stops (stop_id, run_id, round, rule, found, bound, message, stopped_at) VALUES
    ('stop_1', 'old-1', 1, 'kl', 0.5, 0.25, 'too far', '2026-01-02 04:00:00+00');
INSERT INTO decisions (decision_id, run_id, round, number, kind, policy_id, reason, decided_by, decided_at) VALUES
    ('decision_1', 'old-1', 1, 0, 'rollback', 'checkpoint_0', 'went astray', 'ann', '2026-01-02 05:00:00+00');
INSERT INTO removals (checkpoint_id, run_id, reason, removed_at) VALUES
    ('checkpoint_1', 'old-1', 'keep.checkpoints = 1', '2026-01-02 06:00:00+00');
INSERT INTO judges (judge, kind, options, weights_sha256) VALUES ('ann', 'people', '{}', []);
INSERT INTO judgements (judgement_id, judge, completion_id, rival_id, member, principle, "order", value, rationale) VALUES
    ('judgement_p0', 'ann', 'completion_a0', 'completion_a1', '', '', 1, 1, '');
