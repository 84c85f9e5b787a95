-- Every sweep with its axes as JSON, and how many of its points have a run that settles them.
SELECT s.sweep_id, s.model_name, s.axes, s.points, s.started_at,
       count(r.run_id) FILTER (r.status IN ('done', 'analyzed')) AS runs,
       count(r.run_id) FILTER (r.status = 'failed') AS failed
FROM sweeps s
LEFT JOIN runs r ON r.sweep_id = s.sweep_id
GROUP BY s.sweep_id, s.model_name, s.axes, s.points, s.started_at
ORDER BY s.started_at DESC, s.sweep_id
LIMIT 500
