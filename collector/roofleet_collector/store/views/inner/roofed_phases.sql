-- Figures of phases under the roofs of today: which dtype has which roof, and what of the traffic is from memory.
CREATE OR REPLACE VIEW roofed_phases AS
WITH placed AS (
    SELECT f.*, f.matmul_flops + f.other_flops AS flops, f.kv_read_bytes + f.kv_write_bytes AS kv_bytes,
           f.weight_bytes + f.activation_bytes + f.kv_read_bytes + f.kv_write_bytes AS bytes,
           r.compute_flops_per_s AS run_compute, r.memory_bytes_per_s AS run_memory, r.cache_bytes_per_s AS run_cache,
           r.compute_source_kind, r.memory_source_kind,
           products_ns(f.work, r.compute_roofs) AS product_ns,
           others_ns(f.work, r.compute_roofs, r.compute_flops_per_s) AS other_ns,
           CASE WHEN f.work IS NOT NULL
                THEN TRY_CAST(large_bytes(f.activations, r.memory_size_bytes)
                              + CASE WHEN f.step_held_bytes < r.memory_size_bytes THEN 0 ELSE f.held_bytes END
                              AS BIGINT)
                END AS from_memory_bytes
    FROM timed_phases f LEFT JOIN run_roofs r ON r.run_id = f.run_id
),
timed AS (
    SELECT *, CASE WHEN run_cache IS NULL THEN bytes / run_memory * 1e9
                   WHEN from_memory_bytes / run_memory > bytes / run_cache THEN from_memory_bytes / run_memory * 1e9
                   WHEN run_memory IS NOT NULL THEN bytes / run_cache * 1e9 END AS memory_ns
    FROM placed
)
SELECT *, CASE WHEN flops = 0 THEN run_compute ELSE flops / nullif(product_ns + other_ns, 0) * 1e9 END AS compute,
       CASE WHEN work IS NOT NULL THEN coalesce(bytes / nullif(memory_ns, 0) * 1e9, run_memory) END AS memory
FROM timed;
