-- One row an op of a run: what it costs, the dtype that decides its roof, and how much of its traffic cannot come from caches.
-- run_id: The run.
-- phase: `prefill`, `decode` or `forward`.
-- op_index: Its place in the order of execution.
-- path: Layer that executes it.
-- op: Name of the operator.
-- dtype: Type it computes in: its own where that is known, else the run's.
-- is_view: Whether it only gives another view of its input and moves nothing.
-- is_known: Whether there is a formula for it.
-- rounds: How often it runs in a step.
-- matmul_flops: Matrix-product and attention work, dense, in FLOP.
-- causal_flops: The same with the masked half of causal attention left out, in FLOP.
-- needed_flops: What no implementation can do without of matmul_flops; causal_flops where an older collector did not say, in FLOP.
-- needed_kv_bytes: The same of the key-value cache read and written, in bytes.
-- other_flops: Elementwise, norm and softmax work, in FLOP.
-- weight_bytes: Weights read, in bytes.
-- activation_bytes: Activations read and written, in bytes.
-- kv_read_bytes: Key-value cache read, in bytes.
-- kv_write_bytes: Key-value cache written, in bytes.
-- held_bytes: Weights and key-value cache together: they lie in memory between steps, in bytes.
-- large_bytes: Activations of an op that moves more of them than caches can hold; 0 for the others, in bytes.
CREATE OR REPLACE VIEW op_work AS
WITH costs AS (
    SELECT run_id, phase, op_index, path, is_known, dtype, as_count(matmul_flops) AS matmul_flops,
           as_count(causal_flops) AS causal_flops, as_count(coalesce(needed_flops, causal_flops)) AS needed_flops,
           as_count(needed_kv_bytes) AS needed_kv_bytes, as_count(other_flops) AS other_flops,
           as_count(weight_bytes) AS weight_bytes, as_count(activation_bytes) AS activation_bytes,
           as_count(kv_read_bytes) AS kv_read_bytes, as_count(kv_write_bytes) AS kv_write_bytes
    FROM op_costs
)
SELECT c.run_id, c.phase, c.op_index, c.path, o.op,
       -- the ops of older agents do not tell that int8-dynamic quantises what comes in
       CASE WHEN r.variant LIKE '%int8-dynamic%' AND len(o.inputs) > 1 AND o.inputs[2].dtype = 'int8' THEN 'int8'
            ELSE coalesce(c.dtype, r.dtype) END AS dtype,
       o.is_view, c.is_known, rounds_of(o.attributes) AS rounds,
       c.matmul_flops, c.causal_flops, c.needed_flops,
       coalesce(c.needed_kv_bytes, c.kv_read_bytes + c.kv_write_bytes) AS needed_kv_bytes, c.other_flops, c.weight_bytes, c.activation_bytes, c.kv_read_bytes,
       c.kv_write_bytes, c.weight_bytes + c.kv_read_bytes + c.kv_write_bytes AS held_bytes,
       CASE WHEN c.activation_bytes / rounds_of(o.attributes) >= roof_size(s.size_bytes) THEN c.activation_bytes
            ELSE 0 END AS large_bytes
FROM costs c
JOIN ops o USING (run_id, phase, op_index)
LEFT JOIN runs r ON r.run_id = c.run_id
LEFT JOIN roof_sizes s ON s.device_id = r.device_id;
