-- What layer_summary publishes, and beside it what comparisons are worked out from.
CREATE OR REPLACE VIEW judged_layers AS
WITH held AS (
    SELECT * EXCLUDE (flops, bytes), CASE WHEN ops > 0 THEN flops END AS flops, nullif(bytes, 0) AS bytes
    FROM roofed_layers WHERE layer_index IS NOT NULL
),
bounded AS (
    SELECT *, time_at_roof_ns(flops, bytes, compute, memory) AS time_at_roof_ns, nullif(self_ns, 0) AS own_ns,
           point_doubt(self_ns, unknown_ops, guessed) AS doubt
    FROM held
)
SELECT run_id, phase, path, module_type, role, block_index, calls, mean_ns, p50_ns, p95_ns,
       self_ns, share_of_phase,
       matmul_flops, other_flops, weight_bytes, activation_bytes, kv_bytes,
       flops / bytes AS arithmetic_intensity,
       flops / own_ns * 1e9 AS achieved_flops_per_s,
       bytes / own_ns * 1e9 AS achieved_bytes_per_s,
       attainable_flops(flops, bytes, compute, memory) AS attainable_flops_per_s,
       time_at_roof_ns / own_ns AS roofline_fraction,
       bound_by(flops, bytes, compute, memory, own_ns, ops, busy_ns := busy_ns) AS bound,
       peak_memory_bytes, time_at_roof_ns, ops, unknown_ops, parent_path, layer_index, depth, is_leaf,
       total_matmul_flops, total_other_flops, total_weight_bytes, total_activation_bytes, total_kv_bytes,
       kv_read_bytes, kv_write_bytes, timer_ns, busy_ns,
       roof_fault(flops, matmul_flops - needed_flops, bytes, compute, memory, own_ns, doubt)
           AS fault, product_dtypes,
       needed_flops, compute AS compute_roof_flops_per_s, memory AS memory_roof_bytes_per_s, from_memory_bytes,
       guessed, typical_log, typical_variance, typical_iterations
FROM bounded;
