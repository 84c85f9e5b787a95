-- When each layer starts within a step: the order in which the network is drawn.
SELECT path, min(start_ns) AS start_ns
FROM spans
WHERE run_id = ? AND phase = ?
GROUP BY path
ORDER BY start_ns, path
