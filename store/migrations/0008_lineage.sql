-- The edges from pairs and examples to the answers of the judge by which they were paired.

CREATE OR REPLACE VIEW lineage AS
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

-- The two steps of a walk that would go through the longest tables.
CREATE INDEX judgements_of_completion ON judgements (completion_id);
CREATE INDEX completions_of_prompt ON completions (prompt_id);
CREATE INDEX judgements_of_rival ON judgements (rival_id);
