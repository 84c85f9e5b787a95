-- When each layer starts within a step: the order in which the network is drawn.
SELECT path, min(start_ns) AS start_ns
FROM (SELECT run_id, phase, path, start_ns FROM spans
      UNION ALL SELECT run_id, phase, path, start_ns FROM kept_layer_iterations)
WHERE run_id = ? AND phase = ?
GROUP BY path
ORDER BY start_ns, path
