-- Every sweep with its axes as JSON, and how many of its points have a run that settles them. One whose axes are
-- not an object of lists cannot be shown.
SELECT s.sweep_id, s.model_name, s.axes, s.points, as_moment(s.started_at) AS started_at,
       count(r.run_id) FILTER (r.status IN ('done', 'analyzed')) AS runs,
       count(r.run_id) FILTER (r.status = 'failed') AS failed
FROM sweeps s
LEFT JOIN runs r ON r.sweep_id = s.sweep_id
WHERE CASE WHEN json_valid(s.axes) AND json_type(s.axes) = 'OBJECT'
           THEN json_array_length(s.axes, '$.batch_size') > 0 AND list_min(json_array_length(s.axes, '$.*')) > 0 END
GROUP BY s.sweep_id, s.model_name, s.axes, s.points, s.started_at
ORDER BY as_moment(s.started_at) DESC, s.sweep_id
LIMIT 500
