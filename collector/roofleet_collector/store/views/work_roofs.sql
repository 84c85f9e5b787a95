-- One row a run, phase and layer (its own ops) or whole phase: the work, and the roofs it is under. Work of several dtypes has the roof that lets each take its own time.
-- run_id: The run.
-- phase: `prefill`, `decode` or `forward`.
-- path: The layer's path; NULL for the whole phase.
-- matmul_flops: Matrix-product and attention work, dense, in FLOP.
-- causal_flops: The same with the masked half of causal attention left out, in FLOP.
-- needed_flops: What no implementation can do without of matmul_flops, in FLOP.
-- needed_kv_bytes: The same of the key-value cache read and written, in bytes.
-- other_flops: Elementwise, norm and softmax work, in FLOP.
-- weight_bytes: Weights read, in bytes.
-- activation_bytes: Activations read and written, in bytes.
-- kv_read_bytes: Key-value cache read, in bytes.
-- kv_write_bytes: Key-value cache written, in bytes.
-- ops: Ops that move or compute something.
-- unknown_ops: Ops without a formula.
-- product_dtypes: JSON object of the dtypes that products are computed in, each with its share of their FLOP.
-- from_memory_bytes: Traffic that caches cannot serve: weights and key-value cache where a step holds more of them than fits, and activations too large to stay, in bytes.
-- compute_flops_per_s: The compute roof the work is under, by the dtypes of its ops, in FLOP/s; NULL where a product has none.
-- memory_bytes_per_s: The bandwidth roof its traffic is under: the memory's for what must come from there, and the caches' for all of it, in bytes/s.
-- product_ns: Time the matrix products would take at the roofs of their dtypes, in ns.
-- memory_ns: Time the traffic would take at the roof of memory or caches, in ns.
-- guessed: Whether the bytes of an op are an expectation: which experts rows meet, shapes do not say.
CREATE OR REPLACE VIEW work_roofs AS
SELECT run_id, phase, NULL AS path, matmul_flops, causal_flops, needed_flops, needed_kv_bytes, other_flops,
       weight_bytes, activation_bytes, kv_read_bytes, kv_write_bytes, ops, unknown_ops, product_dtypes,
       from_memory_bytes, compute AS compute_flops_per_s, memory AS memory_bytes_per_s, product_ns, memory_ns, guessed
FROM roofed_phases WHERE work IS NOT NULL
UNION ALL
SELECT run_id, phase, path, matmul_flops, causal_flops, needed_flops, needed_kv_bytes, other_flops,
       weight_bytes, activation_bytes, kv_read_bytes, kv_write_bytes, ops, unknown_ops, product_dtypes,
       from_memory_bytes, compute, memory, product_ns, memory_ns, guessed
FROM roofed_layers WHERE work IS NOT NULL;
