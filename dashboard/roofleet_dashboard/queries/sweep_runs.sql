-- The runs of a sweep: what each is, how fast, what it holds at its peak, and the work and traffic of a step.
WITH memory AS (
    SELECT run_id, max(peak_bytes) AS peak_bytes, arg_max(weight_bytes, peak_bytes) AS held_weight_bytes,
           arg_max(kv_bytes, peak_bytes) AS held_kv_bytes,
           arg_max(activation_bytes, peak_bytes) AS held_activation_bytes,
           arg_max(phase, peak_bytes) AS peak_phase
    FROM phase_memory GROUP BY run_id
),
work AS (
    -- a weight that several layers share is needed once
    SELECT s.run_id, s.phase, s.bare_p50_ns, s.matmul_flops + s.other_flops AS flops, s.needed_flops,
           least(s.weight_bytes, coalesce(r.parameter_bytes, s.weight_bytes)) + s.needed_kv_bytes AS needed_bytes,
           s.weight_bytes + s.activation_bytes + s.kv_bytes AS bytes
    FROM phase_summary s JOIN runs r ON r.run_id = s.run_id
)
SELECT r.run_id, r.status, r.error, r.started_at, r.model_name, r.variant, r.dtype, r.attention, r.batch_size,
       r.prompt_tokens, r.new_tokens, d.device_id, d.name AS device_name, r.hostname, r.noise,
       r.time_to_first_token_ns, r.time_per_output_token_ns, f.bare_p50_ns AS forward_ns, r.tokens_per_s,
       m.peak_bytes, m.held_weight_bytes, m.held_kv_bytes, m.held_activation_bytes, m.peak_phase,
       f.phase AS first_phase, f.flops AS first_flops, f.bytes AS first_bytes,
       f.needed_flops AS first_needed_flops, f.needed_bytes AS first_needed_bytes,
       g.flops AS decode_flops, g.bytes AS decode_bytes,
       g.needed_flops AS decode_needed_flops, g.needed_bytes AS decode_needed_bytes, r.decode_cached_tokens
FROM run_summary r
LEFT JOIN devices d ON d.device_id = r.device_id
LEFT JOIN memory m ON m.run_id = r.run_id
LEFT JOIN work f ON f.run_id = r.run_id AND f.phase IN ('prefill', 'forward')
LEFT JOIN work g ON g.run_id = r.run_id AND g.phase = 'decode'
WHERE r.sweep_id = ?
ORDER BY r.started_at, r.run_id
