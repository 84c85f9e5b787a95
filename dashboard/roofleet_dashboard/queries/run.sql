-- One run with its headline figures.
SELECT run_id, run_name, tags, note, started_at, status, error, model_name, parameters, weights, dtype, variant, attention,
       hostname, device_name, device_kind, batch_size, prompt_tokens, new_tokens, logits,
       time_to_first_token_ns, time_per_output_token_ns, tokens_per_s, peak_memory_bytes, energy_j,
       energy_per_token_j, model_flops_utilization, memory_bandwidth_utilization,
       instrumentation_overhead, layer_time_coverage,
       overhead_low, overhead_high, coverage_low, coverage_high, pairs_unknown, noise, unknown_ops, roof_source_kind,
       fault, utilization_is_least, product_dtypes
FROM run_summary
WHERE run_id = ?
