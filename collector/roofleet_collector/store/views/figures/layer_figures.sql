-- layer_figures of the runs being settled.
WITH times AS (
    SELECT run_id, phase, path, median(calls) AS calls, avg(duration_ns) AS mean_ns,
           median(duration_ns) AS p50_ns, quantile_cont(duration_ns, 0.95) AS p95_ns,
           median(self_ns) AS self_ns, median(timer_ns) AS timer_ns
    FROM live_layer_steps GROUP BY run_id, phase, path
),
typical AS (
    SELECT run_id, phase, path, avg(ln(self_ns) ORDER BY iteration) AS middle,
           var_samp(ln(self_ns) ORDER BY iteration) AS variance, count(*) AS n
    FROM live_layer_iterations WHERE self_ns > 0 GROUP BY run_id, phase, path
),
phases AS (
    SELECT run_id, phase, sum(self_ns) AS phase_self_ns
    FROM (SELECT run_id, phase, self_ns FROM times
          UNION ALL SELECT DISTINCT run_id, phase, NULL FROM live_op_costs)
    GROUP BY run_id, phase
),
busy AS (
    SELECT run_id, phase, path, as_count(sum(busy_ns)) AS busy_ns FROM live_op_times GROUP BY run_id, phase, path
),
costs AS (SELECT * FROM live_work WHERE path IS NOT NULL),
upward AS (
    SELECT run_id, phase, unnest(ancestors) AS path, matmul_flops, other_flops, weight_bytes,
           activation_bytes, kv_bytes
    FROM (SELECT *, kv_read_bytes + kv_write_bytes AS kv_bytes,
                 CASE WHEN path = '' THEN ['']
                      ELSE list_concat([''], list_transform(range(1, len(string_split(path, '.')) + 1),
                           lambda i: array_to_string(string_split(path, '.')[1:i], '.'))) END AS ancestors
          FROM costs)
),
totals AS (
    SELECT run_id, phase, path, as_count(sum(matmul_flops)) AS matmul_flops,
           as_count(sum(other_flops)) AS other_flops, as_count(sum(weight_bytes)) AS weight_bytes,
           as_count(sum(activation_bytes)) AS activation_bytes, as_count(sum(kv_bytes)) AS kv_bytes
    FROM upward GROUP BY run_id, phase, path
),
-- layers of the tree in every phase, and where ops name another path, that one
places AS (
    SELECT l.run_id, q.phase, l.path, l.parent_path, l.layer_index, l.depth, l.is_leaf, l.module_type, l.role,
           l.block_index
    FROM live_layers l JOIN phases q ON q.run_id = l.run_id
    UNION ALL BY NAME
    SELECT c.run_id, c.phase, c.path FROM costs c
    WHERE NOT EXISTS (FROM live_layers l WHERE l.run_id = c.run_id AND l.path = c.path)
)
SELECT l.run_id, l.phase, l.path, l.parent_path, l.layer_index, l.depth, l.is_leaf, l.module_type, l.role,
       l.block_index, t.calls::BIGINT AS calls, t.mean_ns, t.p50_ns, t.p95_ns, t.self_ns, t.timer_ns,
       t.self_ns / nullif(q.phase_self_ns, 0) AS share_of_phase, b.busy_ns,
       y.middle AS typical_log, y.variance AS typical_variance, y.n AS typical_iterations,
       m.peak_bytes AS peak_memory_bytes,
       c.matmul_flops, c.causal_flops, c.needed_flops, c.needed_kv_bytes, c.other_flops, c.weight_bytes,
       c.activation_bytes, c.kv_read_bytes, c.kv_write_bytes, c.held_bytes, c.step_held_bytes, c.ops, c.unknown_ops,
       c.guessed, c.product_dtypes, c.work, c.activations,
       s.matmul_flops AS total_matmul_flops, s.other_flops AS total_other_flops,
       s.weight_bytes AS total_weight_bytes, s.activation_bytes AS total_activation_bytes,
       s.kv_bytes AS total_kv_bytes
FROM places l
LEFT JOIN phases q ON q.run_id = l.run_id AND q.phase = l.phase
LEFT JOIN times t ON t.run_id = l.run_id AND t.phase = l.phase AND t.path = l.path
LEFT JOIN typical y ON y.run_id = l.run_id AND y.phase = l.phase AND y.path = l.path
LEFT JOIN busy b ON b.run_id = l.run_id AND b.phase = l.phase AND b.path = l.path
LEFT JOIN costs c ON c.run_id = l.run_id AND c.phase = l.phase AND c.path = l.path
LEFT JOIN totals s ON s.run_id = l.run_id AND s.phase = l.phase AND s.path = l.path
LEFT JOIN live_layer_memory m ON m.run_id = l.run_id AND m.phase = l.phase AND m.path = l.path
