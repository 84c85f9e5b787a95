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
WITH by_dtype AS NOT MATERIALIZED (
    -- whole numbers, whose sums are the same in any order; each op counts for its layer and for its phase
    SELECT w.run_id, w.phase, CASE WHEN e.in_all THEN NULL ELSE w.path END AS path, w.dtype,
           sum(w.matmul_flops)::BIGINT AS matmul_flops, sum(w.causal_flops)::BIGINT AS causal_flops,
           sum(w.needed_flops)::BIGINT AS needed_flops, sum(w.needed_kv_bytes)::BIGINT AS needed_kv_bytes,
           sum(w.other_flops)::BIGINT AS other_flops, sum(w.weight_bytes)::BIGINT AS weight_bytes,
           sum(w.activation_bytes)::BIGINT AS activation_bytes, sum(w.kv_read_bytes)::BIGINT AS kv_read_bytes,
           sum(w.kv_write_bytes)::BIGINT AS kv_write_bytes, sum(w.held_bytes)::BIGINT AS held_bytes,
           sum(w.large_bytes)::BIGINT AS large_bytes,
           coalesce(sum(w.rounds) FILTER (NOT w.is_view), 0)::BIGINT AS ops,
           coalesce(sum(w.rounds) FILTER (NOT w.is_known), 0)::BIGINT AS unknown_ops,
           bool_or(contains(w.op, 'grouped_mm')) AS guessed
    FROM op_work w CROSS JOIN (VALUES (false), (true)) e(in_all)
    GROUP BY w.run_id, w.phase, CASE WHEN e.in_all THEN NULL ELSE w.path END, w.dtype
),
steps AS (
    -- what a step holds in memory: a weight that is read several times is held once
    SELECT b.run_id, b.phase,
           least(sum(b.weight_bytes), coalesce(any_value(r.parameter_bytes), sum(b.weight_bytes)))
               + sum(b.kv_read_bytes) AS held_bytes
    FROM by_dtype b JOIN runs r ON r.run_id = b.run_id WHERE b.path IS NULL GROUP BY b.run_id, b.phase
),
roofed AS (
    SELECT b.*, at_key(f.compute_roofs, b.dtype) AS roof, f.compute_flops_per_s AS compute,
           f.memory_bytes_per_s AS memory, f.cache_bytes_per_s AS cache, f.memory_size_bytes
    FROM by_dtype b LEFT JOIN run_roofs f ON f.run_id = b.run_id
),
summed AS (
    SELECT b.run_id, b.phase, b.path, sum(b.matmul_flops)::BIGINT AS matmul_flops,
           sum(b.needed_flops)::BIGINT AS needed_flops, sum(b.needed_kv_bytes)::BIGINT AS needed_kv_bytes,
           sum(b.causal_flops)::BIGINT AS causal_flops, sum(b.other_flops)::BIGINT AS other_flops,
           sum(b.weight_bytes)::BIGINT AS weight_bytes, sum(b.activation_bytes)::BIGINT AS activation_bytes,
           sum(b.kv_read_bytes)::BIGINT AS kv_read_bytes, sum(b.kv_write_bytes)::BIGINT AS kv_write_bytes,
           sum(b.held_bytes)::BIGINT AS held_bytes, sum(b.large_bytes)::BIGINT AS large_bytes,
           sum(b.ops)::BIGINT AS ops, sum(b.unknown_ops)::BIGINT AS unknown_ops, bool_or(b.guessed) AS guessed,
           map_from_entries(list((b.dtype, b.matmul_flops) ORDER BY b.matmul_flops DESC, b.dtype)
                            FILTER (b.matmul_flops > 0)) AS products,
           CASE WHEN NOT bool_or(b.matmul_flops > 0 AND b.roof IS NULL)
                THEN coalesce(sum(b.matmul_flops / b.roof * 1e9 ORDER BY b.dtype), 0) END AS product_ns,
           -- work that is no product and whose dtype has no roof (integers) is held against the run's
           coalesce(sum(b.other_flops / coalesce(b.roof, b.compute) * 1e9 ORDER BY b.dtype), 0) AS other_ns,
           any_value(b.compute) AS compute, any_value(b.memory) AS memory, any_value(b.cache) AS cache,
           any_value(b.memory_size_bytes) AS memory_size_bytes
    FROM roofed b
    GROUP BY b.run_id, b.phase, b.path
),
placed AS (
    SELECT s.*, s.matmul_flops + s.other_flops AS flops,
           s.weight_bytes + s.activation_bytes + s.kv_read_bytes + s.kv_write_bytes AS bytes,
           s.large_bytes + CASE WHEN t.held_bytes < s.memory_size_bytes THEN 0
                                   WHEN s.path IS NULL THEN least(s.held_bytes, t.held_bytes)
                                   ELSE s.held_bytes END
               AS from_memory_bytes
    FROM summed s LEFT JOIN steps t ON t.run_id = s.run_id AND t.phase = s.phase
),
timed AS (
    SELECT *, CASE WHEN cache IS NULL THEN bytes / memory * 1e9
                   WHEN from_memory_bytes / memory > bytes / cache THEN from_memory_bytes / memory * 1e9
                   WHEN memory IS NOT NULL THEN bytes / cache * 1e9 END AS memory_ns
    FROM placed
)
SELECT run_id, phase, path, matmul_flops, causal_flops, needed_flops, needed_kv_bytes, other_flops, weight_bytes, activation_bytes,
       kv_read_bytes, kv_write_bytes, ops, unknown_ops,
       CASE WHEN matmul_flops > 0 THEN to_json(map_from_entries(list_transform(
                map_entries(products), lambda e: (e.key, round(e.value / matmul_flops, 4)))))::VARCHAR
            END AS product_dtypes,
       from_memory_bytes,
       CASE WHEN flops = 0 THEN compute ELSE flops / nullif(product_ns + other_ns, 0) * 1e9 END
           AS compute_flops_per_s,
       coalesce(bytes / nullif(memory_ns, 0) * 1e9, memory) AS memory_bytes_per_s,
       product_ns, memory_ns, coalesce(guessed, false) AS guessed
FROM timed;
