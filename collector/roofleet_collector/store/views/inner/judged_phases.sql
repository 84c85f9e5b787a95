-- What phase_summary publishes, and beside it what comparisons are worked out from.
CREATE OR REPLACE VIEW judged_phases AS
WITH held AS (
    SELECT *, time_at_roof_ns(flops, bytes, compute, memory) AS time_at_roof_ns,
           CASE WHEN 'datasheet' NOT IN (compute_source_kind, memory_source_kind) THEN 'measured'
                WHEN compute_source_kind = memory_source_kind THEN compute_source_kind
                WHEN compute_source_kind IS NULL OR memory_source_kind IS NULL
                THEN coalesce(compute_source_kind, memory_source_kind)
                ELSE 'mixed' END AS roof_source_kind,
           nullif(concat_ws('; ', point_doubt(bare_p50_ns, unknown_ops, guessed), phase_doubt(noise, low, 1.0)), '')
               AS doubt
    FROM roofed_phases
)
SELECT run_id, phase, steps,
       nullif(as_count(coalesce(tokens, phase_tokens)::HUGEINT * batch_size), 0) AS tokens_per_step,
       bare_p50_ns, bare_p5_ns, bare_p95_ns, timed_p50_ns,
       CASE WHEN pairs_unknown IS NULL THEN overhead END AS instrumentation_overhead,
       CASE WHEN pairs_unknown IS NULL THEN coverage END AS layer_time_coverage,
       matmul_flops, causal_flops, other_flops, weight_bytes, activation_bytes, kv_bytes, ops, unknown_ops,
       flops / nullif(bytes, 0) AS arithmetic_intensity,
       flops / bare_p50_ns * 1e9 AS achieved_flops_per_s,
       bytes / bare_p50_ns * 1e9 AS achieved_bytes_per_s,
       attainable_flops(flops, bytes, compute, memory) AS attainable_flops_per_s,
       time_at_roof_ns,
       time_at_roof_ns / bare_p50_ns AS roofline_fraction,
       bound_by(flops, bytes, compute, memory, bare_p50_ns, ops, busy_ns := busy_ns) AS bound,
       product_ns / bare_p50_ns AS model_flops_utilization,
       memory_ns / bare_p50_ns AS memory_bandwidth_utilization,
       roof_source_kind, bare_p99_ns, typical AS bare_typical_ns, low AS bare_low_ns, high AS bare_high_ns,
       noise,
       busy_ns, kv_read_bytes, kv_write_bytes, pairs,
       CASE WHEN pairs_unknown IS NULL THEN overhead_low END AS overhead_low,
       CASE WHEN pairs_unknown IS NULL THEN overhead_high END AS overhead_high,
       CASE WHEN pairs_unknown IS NULL THEN coverage * exp(-coverage_margin) END AS coverage_low,
       CASE WHEN pairs_unknown IS NULL THEN coverage * exp(coverage_margin) END AS coverage_high,
       pairs_unknown,
       needed_flops, needed_kv_bytes,
       roof_fault(flops, matmul_flops - needed_flops, bytes, compute, memory, bare_p50_ns, doubt) AS fault,
       product_dtypes, unknown_share,
       unknown_ops > 0 AND coalesce(unknown_share, 1) >= 0.05 AS utilization_is_least,
       compute AS compute_roof_flops_per_s, memory AS memory_roof_bytes_per_s,
       from_memory_bytes, guessed, typical_log, typical_variance, typical_iterations
FROM held;
