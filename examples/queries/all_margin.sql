-- pair.query: all pairs of a prompt's answers whose scores differ by more than 0.25, as all_margin with min_margin 0.25.
WITH answers AS (
    SELECT c.prompt_id, c.completion_id, c.text, s.score
    FROM completions c JOIN prompts p USING (prompt_id) JOIN scores s USING (completion_id)
    WHERE c.run_id = $run AND c.round = $round AND p.split = 'train' AND s.judge = $judge AND s.score IS NOT NULL
    AND NOT EXISTS (FROM completions k WHERE k.parent_id = c.completion_id)
)
SELECT a.completion_id AS chosen_id, b.completion_id AS rejected_id, a.score - b.score AS margin
FROM answers a JOIN answers b USING (prompt_id)
WHERE a.score - b.score > 0.25 AND a.text <> b.text
