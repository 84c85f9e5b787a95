-- The runs of a sweep: what each is, how fast, what it holds at its peak, and the work and traffic of a step.
WITH memory AS (
    SELECT run_id, max(peak_bytes) AS peak_bytes, arg_max(weight_bytes, peak_bytes) AS held_weight_bytes,
           arg_max(kv_bytes, peak_bytes) AS held_kv_bytes,
           arg_max(activation_bytes, peak_bytes) AS held_activation_bytes,
           arg_max(phase, peak_bytes) AS peak_phase
    FROM phase_memory GROUP BY run_id
),
work AS (
    SELECT run_id, phase, bare_p50_ns, matmul_flops + other_flops AS flops, causal_flops, weight_bytes, kv_bytes,
           needed_flops, weight_bytes + needed_kv_bytes AS needed_bytes,
           weight_bytes + activation_bytes + kv_bytes AS bytes
    FROM phase_summary
)
SELECT r.run_id, r.status, r.error, r.started_at, r.model_name, r.variant, r.dtype, r.attention, r.batch_size,
       r.prompt_tokens, r.new_tokens, d.device_id, d.name AS device_name, r.hostname, r.noise,
       r.time_to_first_token_ns, r.time_per_output_token_ns, f.bare_p50_ns AS forward_ns, r.tokens_per_s,
       m.peak_bytes, m.held_weight_bytes, m.held_kv_bytes, m.held_activation_bytes, m.peak_phase,
       f.phase AS first_phase, f.flops AS first_flops, f.bytes AS first_bytes, f.causal_flops AS first_causal_flops,
       f.weight_bytes + f.kv_bytes AS first_compulsory_bytes, f.needed_flops AS first_needed_flops,
       f.needed_bytes AS first_needed_bytes,
       g.flops AS decode_flops, g.bytes AS decode_bytes, g.causal_flops AS decode_causal_flops,
       g.weight_bytes + g.kv_bytes AS decode_compulsory_bytes, g.needed_flops AS decode_needed_flops,
       g.needed_bytes AS decode_needed_bytes, r.decode_cached_tokens
FROM run_summary r
LEFT JOIN devices d ON d.device_id = r.device_id
LEFT JOIN memory m ON m.run_id = r.run_id
LEFT JOIN work f ON f.run_id = r.run_id AND f.phase IN ('prefill', 'forward')
LEFT JOIN work g ON g.run_id = r.run_id AND g.phase = 'decode'
WHERE r.sweep_id = ?
ORDER BY r.started_at, r.run_id
