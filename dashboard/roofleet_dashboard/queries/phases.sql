-- The phases of a run in the order they happen.
SELECT phase, steps, tokens_per_step, bare_p50_ns, bare_p5_ns, bare_p95_ns, instrumentation_overhead,
       layer_time_coverage,
       overhead_low, overhead_high, coverage_low, coverage_high, pairs_unknown, matmul_flops + other_flops AS flops,
       weight_bytes + activation_bytes + kv_bytes AS bytes, arithmetic_intensity, achieved_flops_per_s,
       attainable_flops_per_s, roofline_fraction, bound, model_flops_utilization,
       memory_bandwidth_utilization, unknown_ops, roof_source_kind,
       fault, utilization_is_least
FROM phase_summary
WHERE run_id = ?
ORDER BY phase DESC
