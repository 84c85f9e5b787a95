-- turn_figures of the runs being settled, against those they took turns with, either way.
WITH both_runs AS (
    SELECT a.run_id AS baseline_run_id, b.run_id
    FROM turning x
    JOIN turning y ON y.run_id <> x.run_id
    JOIN runs a ON a.run_id = x.run_id
    JOIN runs b ON b.run_id = y.run_id AND b.turns_id = a.turns_id
    WHERE a.run_id IN (SELECT run_id FROM settling) OR b.run_id IN (SELECT run_id FROM settling)
),
ratios AS (
    SELECT k.baseline_run_id, k.run_id, a.phase, NULL AS path, b.duration_ns / a.duration_ns AS ratio
    FROM both_runs k
    JOIN live_steps a ON a.run_id = k.baseline_run_id
    JOIN live_steps b ON b.run_id = k.run_id AND b.phase = a.phase AND b.iteration = a.iteration
                     AND b.step_index = a.step_index
    WHERE a.pass = 'bare' AND b.pass = 'bare' AND NOT a.is_warmup AND NOT b.is_warmup
      AND is_duration(a.duration_ns) AND is_duration(b.duration_ns)
    UNION ALL
    SELECT k.baseline_run_id, k.run_id, a.phase, a.path, b.self_ns / a.self_ns
    FROM both_runs k
    JOIN live_layer_steps a ON a.run_id = k.baseline_run_id
    JOIN live_layer_steps b ON b.run_id = k.run_id AND b.phase = a.phase AND b.path = a.path
                           AND b.iteration = a.iteration AND b.step_index = a.step_index
    WHERE a.self_ns > 0 AND b.self_ns > 0
),
summed AS (
    SELECT baseline_run_id, run_id, phase, path, median(ratio) AS ratio,
           median_interval(list(ratio ORDER BY ratio), count(*)) AS reach
    FROM ratios GROUP BY baseline_run_id, run_id, phase, path
)
SELECT baseline_run_id, run_id, phase, path, ratio, reach.low AS low, reach.high AS high FROM summed
