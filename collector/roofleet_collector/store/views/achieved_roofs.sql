-- The most that each run achieved, as rows that are kept in `roofs` when it ends: of its steps and layers whose work and time are not in doubt, and only where nothing but the roof can have bound it. Work is what no implementation can do without.
-- roof_id: Identity of the observation: the run and what it tells of.
-- device_id: The device.
-- kind: `compute` or `memory`.
-- dtype: Operand type of a compute roof.
-- flops_per_s: Matrix work a second, in FLOP/s.
-- bytes_per_s: Traffic a second, in bytes/s.
-- source_kind: `seen`.
-- source: Run, model, phase and layer.
-- measured_at: When the run ended.
-- size_bytes: For memory: the size beyond which caches hold nothing, if this came from memory; 0 for what may have been in a cache, in bytes.
-- threads: Threads of the run.
-- torch_version: torch of the run.
-- driver_version: Driver of the run.
-- other_load: Share that other work took meanwhile, 0 to 1.
-- run_id: The run.
CREATE OR REPLACE VIEW achieved_roofs AS
WITH layers_seen AS (
    SELECT l.run_id, l.phase, l.path, l.self_ns AS time_ns, l.product_dtypes, l.needed_flops,
           -- a layer's weights can outlast a step in a cache unless they are larger than it is
           CASE WHEN l.from_memory_bytes >= f.memory_size_bytes / 4 AND l.calls <= 1
                THEN l.from_memory_bytes END AS memory_bytes,
           -- compiled code, which the model itself holds where it is compiled as a whole, moves less
           CASE WHEN l.path <> '' AND r.variant NOT LIKE '%compile%'
                THEN l.weight_bytes + l.activation_bytes + l.kv_bytes END AS cached_bytes
    FROM layer_summary l
    JOIN timed_phases p ON p.run_id = l.run_id AND p.phase = l.phase
    JOIN run_roofs f ON f.run_id = l.run_id
    JOIN runs r ON r.run_id = l.run_id
    WHERE point_doubt(l.self_ns, l.unknown_ops, l.guessed) IS NULL
      AND phase_doubt(p.noise, p.low, CASE WHEN p.pairs_unknown IS NULL THEN p.coverage END) IS NULL
),
steps_seen AS (
    SELECT p.run_id, p.phase, NULL AS path, p.bare_p50_ns AS time_ns, p.product_dtypes, p.needed_flops,
           CASE WHEN p.from_memory_bytes >= f.memory_size_bytes THEN p.from_memory_bytes END AS memory_bytes,
           NULL AS cached_bytes
    FROM phase_summary p JOIN run_roofs f ON f.run_id = p.run_id
    WHERE point_doubt(p.bare_p50_ns, p.unknown_ops, p.guessed) IS NULL
      AND phase_doubt(p.noise, p.bare_low_ns, 1.0) IS NULL
),
seen AS (SELECT * FROM layers_seen UNION ALL SELECT * FROM steps_seen),
told AS (
    SELECT run_id, phase, path, unnest([
               {'kind': 'compute', 'from_memory': NULL::BOOLEAN, 'dtype': json_keys(product_dtypes)[1],
                'per_s': CASE WHEN len(json_keys(product_dtypes)) = 1 THEN needed_flops / time_ns * 1e9 END},
               {'kind': 'memory', 'from_memory': true, 'dtype': NULL, 'per_s': memory_bytes / time_ns * 1e9},
               {'kind': 'memory', 'from_memory': false, 'dtype': NULL, 'per_s': cached_bytes / time_ns * 1e9}
           ], recursive := true)
    FROM seen WHERE time_ns > 0
),
best AS (
    SELECT run_id, kind, dtype, from_memory, max(per_s) AS per_s,
           arg_max({'phase': phase, 'path': path}, per_s) AS place
    FROM told WHERE per_s > 0 GROUP BY run_id, kind, dtype, from_memory
)
SELECT concat_ws('/', b.run_id, b.kind, coalesce(b.dtype, CASE WHEN b.from_memory THEN 'memory' ELSE 'cache' END))
           AS roof_id,
       r.device_id, b.kind, b.dtype,
       -- up by a rounding error, so that what was seen does not lie above itself
       CASE WHEN b.kind = 'compute' THEN b.per_s * (1 + 1e-9) END AS flops_per_s,
       CASE WHEN b.kind = 'memory' THEN b.per_s * (1 + 1e-9) END AS bytes_per_s,
       'seen' AS source_kind,
       concat('seen in run ', b.run_id, ': ', m.name, ', ', b.place.phase,
              CASE WHEN b.place.path IS NULL THEN ', the whole step' ELSE concat(', ', b.place.path) END) AS source,
       coalesce(r.finished_at, r.started_at) AS measured_at,
       CASE WHEN b.from_memory THEN f.memory_size_bytes WHEN b.kind = 'memory' THEN 0 END AS size_bytes,
       r.threads, r.torch_version, r.driver_version, r.other_load, b.run_id
FROM best b
JOIN runs r ON r.run_id = b.run_id
JOIN run_roofs f ON f.run_id = b.run_id
LEFT JOIN models m ON m.model_id = r.model_id
WHERE r.status = 'done';
