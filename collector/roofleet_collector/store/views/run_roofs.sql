-- The roofs a run is held against: the best seen on its device under its conditions (threads, torch, driver) where there is one, else the datasheet's. Each op is held against the compute roof of its own dtype.
-- run_id: The run.
-- compute_flops_per_s: Compute roof of the run's dtype on its device, in FLOP/s, dense; that of int8 for int8-dynamic, NULL where none is known.
-- compute_source_kind: `measured`, `seen` in a run, or `datasheet`.
-- compute_source: What was measured and how, the run it was seen in, or the datasheet's address.
-- memory_bytes_per_s: Bandwidth roof of the device's memory, in bytes/s.
-- memory_source_kind: `measured`, `seen` in a run, or `datasheet`.
-- memory_source: What was measured and how, the run it was seen in, or the datasheet's address.
-- compute_roofs: The compute roofs of all dtypes that have one, by dtype, in FLOP/s.
-- memory_size_bytes: Data of less than this size may stay in the device's caches; the roof of the memory was measured on as much, in bytes.
-- cache_bytes_per_s: Bandwidth roof of what stays in the device's caches, in bytes/s; NULL where none was measured.
-- cache_source: What was measured and how, or the run it was seen in.
CREATE OR REPLACE VIEW run_roofs AS
WITH heights AS (
    SELECT f.device_id, f.threads, f.torch_version, f.driver_version, f.kind, f.source_kind = 'datasheet' AS by_sheet,
           CASE WHEN f.kind = 'compute' THEN f.dtype
                WHEN f.source_kind = 'seen' AND f.size_bytes < roof_size(s.size_bytes) THEN 'cache'
                WHEN f.memory_level = 'cache' THEN 'cache' ELSE 'memory' END AS name,
           max(coalesce(f.flops_per_s, f.bytes_per_s)) AS per_s,
           arg_max({'kind': f.source_kind, 'source': f.source}, coalesce(f.flops_per_s, f.bytes_per_s)) AS origin,
           bool_or(f.source_kind = 'measured') AS was_measured
    FROM roofs f LEFT JOIN roof_sizes s ON s.device_id = f.device_id GROUP BY ALL
),
matched AS (
    SELECT r.run_id, h.kind, h.name, h.by_sheet, max(h.per_s) AS per_s, arg_max(h.origin, h.per_s) AS origin
    FROM runs r
    JOIN heights h ON h.device_id = r.device_id AND (h.by_sheet OR same_conditions(
        r.threads, r.torch_version, r.driver_version, h.threads, h.torch_version, h.driver_version))
    GROUP BY r.run_id, h.kind, h.name, h.by_sheet
    -- what a run achieved raises a roof that was measured, and is none by itself
    HAVING h.by_sheet OR bool_or(h.was_measured)
),
chosen AS (
    SELECT run_id, kind, name, arg_min(per_s, by_sheet) AS per_s, arg_min(origin, by_sheet) AS origin
    FROM matched GROUP BY run_id, kind, name
),
gathered AS (
    SELECT run_id,
           map_from_entries(list((name, per_s) ORDER BY name) FILTER (kind = 'compute')) AS compute_roofs,
           map_from_entries(list((name, origin) ORDER BY name) FILTER (kind = 'compute')) AS origins,
           max(per_s) FILTER (name = 'memory') AS memory, any_value(origin) FILTER (name = 'memory') AS memory_origin,
           max(per_s) FILTER (name = 'cache') AS cache, any_value(origin) FILTER (name = 'cache') AS cache_origin
    FROM chosen GROUP BY run_id
)
SELECT r.run_id,
       at_key(g.compute_roofs, multiplied_in(r.dtype, r.variant)) AS compute_flops_per_s,
       at_key(g.origins, multiplied_in(r.dtype, r.variant)).kind AS compute_source_kind,
       at_key(g.origins, multiplied_in(r.dtype, r.variant)).source AS compute_source,
       g.memory AS memory_bytes_per_s,
       g.memory_origin.kind AS memory_source_kind,
       g.memory_origin.source AS memory_source,
       g.compute_roofs, roof_size(s.size_bytes) AS memory_size_bytes, g.cache AS cache_bytes_per_s,
       g.cache_origin.source AS cache_source
FROM runs r
LEFT JOIN gathered g ON g.run_id = r.run_id
LEFT JOIN roof_sizes s ON s.device_id = r.device_id;
