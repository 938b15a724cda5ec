-- stop.query: stop when held-out answers are 1.5 times as long as the initial policy's and win no more often than before.
SELECT now.value / initial.value AS found, 1.5 AS bound,
       format('answers are {:.2f} times as long as at first, and the win rate is {:.3f} after {:.3f}',
              now.value / initial.value, won.value, before.value) AS message
FROM evaluations now
JOIN evaluations initial ON initial.run_id = now.run_id AND initial.round = 0 AND initial.metric = now.metric
JOIN evaluations won ON won.run_id = now.run_id AND won.round = now.round AND won.metric = 'win_rate'
JOIN evaluations before ON before.run_id = now.run_id AND before.round = now.round - 1 AND before.metric = 'win_rate'
WHERE now.run_id = $run AND now.round = $round AND now.metric = 'mean_tokens'
AND now.value > 1.5 * initial.value AND won.value <= before.value
