-- What the ops of a layer, or of a whole phase (path is NULL), cost and hold, before any roof.
WITH by_dtype AS (
    -- whole numbers, whose sums are the same in any order; each op counts for its layer and for its phase
    SELECT w.run_id, w.phase, CASE WHEN e.in_all THEN NULL ELSE w.path END AS path, w.dtype,
           sum(w.matmul_flops) AS matmul_flops, sum(w.causal_flops) AS causal_flops,
           sum(w.needed_flops) AS needed_flops, sum(w.needed_kv_bytes) AS needed_kv_bytes,
           sum(w.other_flops) AS other_flops, sum(w.weight_bytes) AS weight_bytes,
           sum(w.activation_bytes) AS activation_bytes, sum(w.kv_read_bytes) AS kv_read_bytes,
           sum(w.kv_write_bytes) AS kv_write_bytes, sum(w.held_bytes) AS held_bytes,
           coalesce(sum(w.rounds) FILTER (NOT w.is_view), 0) AS ops,
           coalesce(sum(w.rounds) FILTER (NOT w.is_known), 0) AS unknown_ops,
           bool_or(contains(w.op, 'grouped_mm')) AS guessed
    FROM live_op_work w CROSS JOIN (VALUES (false), (true)) e(in_all)
    GROUP BY w.run_id, w.phase, CASE WHEN e.in_all THEN NULL ELSE w.path END, w.dtype
),
counted AS (
    SELECT * REPLACE (as_count(matmul_flops) AS matmul_flops, as_count(other_flops) AS other_flops) FROM by_dtype
),
grouped AS (
    SELECT run_id, phase, path, sum(matmul_flops) AS matmul_flops, sum(causal_flops) AS causal_flops,
           sum(needed_flops) AS needed_flops, sum(needed_kv_bytes) AS needed_kv_bytes,
           sum(other_flops) AS other_flops, sum(weight_bytes) AS weight_bytes,
           sum(activation_bytes) AS activation_bytes, sum(kv_read_bytes) AS kv_read_bytes,
           sum(kv_write_bytes) AS kv_write_bytes, sum(held_bytes) AS held_bytes, sum(ops) AS ops,
           sum(unknown_ops) AS unknown_ops, coalesce(bool_or(guessed), false) AS guessed,
           map_from_entries(list((dtype, matmul_flops) ORDER BY matmul_flops DESC, dtype)
                            FILTER (matmul_flops > 0)) AS products,
           list({'dtype': dtype, 'matmul_flops': matmul_flops, 'other_flops': other_flops} ORDER BY dtype) AS work
    FROM counted GROUP BY run_id, phase, path
),
summed AS (
    SELECT * REPLACE (
        as_count(matmul_flops) AS matmul_flops, as_count(causal_flops) AS causal_flops,
        as_count(needed_flops) AS needed_flops, as_count(needed_kv_bytes) AS needed_kv_bytes,
        as_count(other_flops) AS other_flops, as_count(weight_bytes) AS weight_bytes,
        as_count(activation_bytes) AS activation_bytes, as_count(kv_read_bytes) AS kv_read_bytes,
        as_count(kv_write_bytes) AS kv_write_bytes, as_count(held_bytes) AS held_bytes, as_count(ops) AS ops,
        as_count(unknown_ops) AS unknown_ops)
    FROM grouped
),
sizes AS (
    -- how large they are, so that roofs can tell later what of them stays in caches
    SELECT run_id, phase, path, list({'each_bytes': each_bytes, 'bytes': bytes} ORDER BY each_bytes) AS activations
    FROM (SELECT w.run_id, w.phase, CASE WHEN e.in_all THEN NULL ELSE w.path END AS path,
                 w.activation_bytes / w.rounds AS each_bytes, as_count(sum(w.activation_bytes)) AS bytes
          FROM live_op_work w CROSS JOIN (VALUES (false), (true)) e(in_all)
          WHERE w.activation_bytes > 0
          GROUP BY w.run_id, w.phase, CASE WHEN e.in_all THEN NULL ELSE w.path END, w.activation_bytes / w.rounds)
    GROUP BY run_id, phase, path
),
held AS (
    -- what a step holds in memory: a weight that is read several times is held once
    SELECT s.run_id, s.phase,
           least(s.weight_bytes, coalesce(as_count(r.parameter_bytes), s.weight_bytes)) + s.kv_read_bytes AS step_bytes
    FROM summed s JOIN runs r ON r.run_id = s.run_id WHERE s.path IS NULL
)
SELECT s.* EXCLUDE (held_bytes, products, work),
       CASE WHEN s.path IS NULL THEN least(s.held_bytes, h.step_bytes) ELSE s.held_bytes END AS held_bytes,
       h.step_bytes AS step_held_bytes,
       CASE WHEN s.matmul_flops > 0 THEN to_json(map_from_entries(list_transform(
                map_entries(s.products), lambda e: (e.key, round(e.value / s.matmul_flops, 4)))))::VARCHAR
            END AS product_dtypes,
       s.work, z.activations
FROM summed s
LEFT JOIN sizes z ON z.run_id = s.run_id AND z.phase = s.phase AND z.path IS NOT DISTINCT FROM s.path
LEFT JOIN held h ON h.run_id = s.run_id AND h.phase = s.phase
