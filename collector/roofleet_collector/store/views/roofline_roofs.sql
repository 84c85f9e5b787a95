-- The roofs in force: the best that was ever seen of each ceiling of each device under the same conditions, and beside it what its datasheet says. A later, lower measurement changes nothing.
-- device_id: The device.
-- device_name: Its name.
-- device_kind: `cpu`, `gpu` or `tpu`.
-- hostname: Host it sits in.
-- kind: `compute` or `memory`.
-- dtype: Operand type of a compute roof.
-- accumulate_dtype: Type that sums are kept in, where it decides the figure.
-- memory_level: Memory of a memory roof: `cache`, or the device's own as `dram`, `device`, `hbm3` and others.
-- flops_per_s: Height of a compute roof, dense, in FLOP/s.
-- bytes_per_s: Height of a memory roof, in bytes/s.
-- source_kind: `measured` on this device, `seen` in a run on it, or from a `datasheet`.
-- source: What was measured and how, the run it was seen in, or the datasheet's address.
-- measured_at: When it was measured or seen.
-- threads: Threads of the CPU backend it holds for; NULL on an accelerator, and for a datasheet's.
-- torch_version: torch it holds for; NULL for a datasheet's, which holds for all, and where an older agent did not say.
-- driver_version: Driver it holds for, where the device has one.
-- size_bytes: Size of the data it was measured on, in bytes.
-- other_load: Share that other work took of the processors while it was measured, 0 to 1.
-- spread: How much longer the median round took than the best: 0.05 is 5 %.
-- observations: Measurements it is the best of, and runs whose work and time are not in doubt.
-- lowest_per_s: The lowest that was measured of it, in FLOP/s or bytes/s.
CREATE OR REPLACE VIEW roofline_roofs AS
WITH observed AS (
    SELECT f.device_id, f.kind, f.dtype, f.accumulate_dtype,
           CASE WHEN f.kind = 'compute' OR f.source_kind <> 'seen' THEN f.memory_level
                WHEN f.size_bytes >= roof_size(m.size_bytes) THEN m.memory_level ELSE 'cache' END AS memory_level,
           coalesce(f.flops_per_s, f.bytes_per_s) AS per_s, f.source_kind, f.source, f.measured_at, f.threads,
           f.torch_version, f.driver_version, f.size_bytes, f.other_load, f.spread
    FROM roofs f LEFT JOIN roof_sizes m ON m.device_id = f.device_id
),
conditions AS (
    SELECT device_id, threads, torch_version, driver_version FROM runs WHERE status <> 'analyzed'
    UNION
    SELECT device_id, threads, torch_version, driver_version FROM roofs WHERE source_kind = 'measured'
),
best AS (
    SELECT c.device_id, c.threads, c.torch_version, c.driver_version, o.kind, o.dtype, o.memory_level,
           arg_max(o, o.per_s) AS top, count(*) AS observations,
           min(o.per_s) FILTER (o.source_kind = 'measured') AS lowest_per_s
    FROM conditions c
    JOIN observed o ON o.device_id = c.device_id AND o.source_kind <> 'datasheet' AND same_conditions(
        c.threads, c.torch_version, c.driver_version, o.threads, o.torch_version, o.driver_version)
    GROUP BY c.device_id, c.threads, c.torch_version, c.driver_version, o.kind, o.dtype, o.memory_level
    -- what a run achieved raises a roof that was measured, and is none by itself
    HAVING bool_or(o.source_kind = 'measured')
),
every AS (
    SELECT device_id, kind, dtype, memory_level, threads, torch_version, driver_version, top, observations,
           lowest_per_s
    FROM best
    UNION ALL
    SELECT device_id, kind, dtype, memory_level, NULL, NULL, NULL, o, 1, NULL
    FROM observed o WHERE source_kind = 'datasheet'
)
SELECT e.device_id, d.name AS device_name, d.kind AS device_kind, h.hostname, e.kind, e.dtype,
       e.top.accumulate_dtype AS accumulate_dtype, e.memory_level,
       CASE WHEN e.kind = 'compute' THEN e.top.per_s END AS flops_per_s,
       CASE WHEN e.kind = 'memory' THEN e.top.per_s END AS bytes_per_s,
       e.top.source_kind AS source_kind, e.top.source AS source, as_moment(e.top.measured_at) AS measured_at,
       e.threads, e.torch_version, e.driver_version, e.top.size_bytes AS size_bytes,
       e.top.other_load AS other_load, e.top.spread AS spread, e.observations, e.lowest_per_s
FROM every e
LEFT JOIN devices d ON d.device_id = e.device_id
LEFT JOIN hosts h ON h.host_id = d.host_id;
