-- prompts.query: first the prompts on whose answers judges disagree most. It asks of all earlier rounds of the run: what
-- share of each two scored answers do two judges put in opposite order? Give the run a second judge with: spar judge.
WITH scored AS (
    SELECT c.prompt_id, c.round, c.completion_id, s.judge, s.score
    FROM completions c JOIN prompts p USING (prompt_id) JOIN scores s USING (completion_id)
    WHERE c.run_id = $run AND c.round < $round AND p.split = 'train' AND s.score IS NOT NULL
),
ordered AS (
    SELECT a.prompt_id, a.completion_id AS one, b.completion_id AS other, a.judge, sign(a.score - b.score) AS verdict
    FROM scored a JOIN scored b USING (prompt_id, round, judge) WHERE a.completion_id < b.completion_id
)
SELECT a.prompt_id
FROM ordered a JOIN ordered b USING (prompt_id, one, other)
WHERE a.judge < b.judge
GROUP BY a.prompt_id HAVING avg((a.verdict * b.verdict < 0)::INTEGER) > 0
ORDER BY avg((a.verdict * b.verdict < 0)::INTEGER) DESC, a.prompt_id
