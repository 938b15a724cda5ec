-- pair.query: the best answer of each prompt against its worst, as the builder best_worst. The first sample wins a tie.
WITH answers AS (
    SELECT c.prompt_id, c.completion_id, c.text, s.score,
           row_number() OVER (PARTITION BY c.prompt_id ORDER BY c.origin, c.policy_id, c.sample) AS place
    FROM completions c JOIN prompts p USING (prompt_id) JOIN scores s USING (completion_id)
    WHERE c.run_id = $run AND c.round = $round AND p.split = 'train' AND s.judge = $judge AND s.score IS NOT NULL
    AND NOT EXISTS (FROM completions k WHERE k.parent_id = c.completion_id)  -- of a tree, only whole answers
),
ends AS (
    SELECT prompt_id, first(completion_id ORDER BY score DESC, place) AS chosen_id,
           first(completion_id ORDER BY score, place) AS rejected_id,
           first(text ORDER BY score DESC, place) AS chosen, first(text ORDER BY score, place) AS rejected
    FROM answers GROUP BY prompt_id HAVING max(score) > min(score)
)
SELECT chosen_id, rejected_id FROM ends WHERE chosen <> rejected
