-- Everything known about one layer in one phase of a run.
SELECT path, module_type, role, block_index, calls, mean_ns, p50_ns, p95_ns, self_ns, share_of_phase,
       matmul_flops, other_flops, weight_bytes, activation_bytes, kv_bytes, arithmetic_intensity,
       achieved_flops_per_s, achieved_bytes_per_s, attainable_flops_per_s, roofline_fraction, bound,
       peak_memory_bytes, time_at_roof_ns, ops, unknown_ops, is_leaf,
       total_matmul_flops, total_other_flops, total_weight_bytes, total_activation_bytes, total_kv_bytes,
       fault, product_dtypes
FROM layer_summary
WHERE run_id = ? AND phase = ? AND path = ?
