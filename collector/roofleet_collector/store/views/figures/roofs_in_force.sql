-- roofs_in_force of some devices, under all conditions under which anything ran on them.
WITH heights AS (
    SELECT f.device_id, f.threads, f.torch_version, f.driver_version, f.kind, f.source_kind = 'datasheet' AS by_sheet,
           CASE WHEN f.kind = 'compute' THEN f.dtype
                WHEN f.source_kind = 'seen' AND f.size_bytes < roof_size(s.size_bytes) THEN 'cache'
                WHEN f.memory_level = 'cache' THEN 'cache' ELSE 'memory' END AS name,
           max(coalesce(f.flops_per_s, f.bytes_per_s)) AS per_s,
           arg_max({'kind': f.source_kind, 'source': f.source}, coalesce(f.flops_per_s, f.bytes_per_s)) AS origin,
           bool_or(f.source_kind = 'measured') AS was_measured
    FROM roofs f LEFT JOIN roof_sizes s ON s.device_id = f.device_id
    WHERE list_contains($1, f.device_id) GROUP BY ALL
),
conditions AS (
    SELECT DISTINCT device_id, threads, torch_version, driver_version FROM runs WHERE list_contains($1, device_id)
),
matched AS (
    SELECT c.device_id, c.threads, c.torch_version, c.driver_version, h.kind, h.name, h.by_sheet,
           max(h.per_s) AS per_s, arg_max(h.origin, h.per_s) AS origin
    FROM conditions c
    JOIN heights h ON h.device_id = c.device_id AND (h.by_sheet OR same_conditions(
        c.threads, c.torch_version, c.driver_version, h.threads, h.torch_version, h.driver_version))
    GROUP BY c.device_id, c.threads, c.torch_version, c.driver_version, h.kind, h.name, h.by_sheet
    -- what a run achieved raises a roof that was measured, and is none by itself
    HAVING h.by_sheet OR bool_or(h.was_measured)
),
chosen AS (
    SELECT device_id, threads, torch_version, driver_version, kind, name, arg_min(per_s, by_sheet) AS per_s,
           arg_min(origin, by_sheet) AS origin
    FROM matched GROUP BY ALL
),
gathered AS (
    SELECT device_id, threads, torch_version, driver_version,
           list({'dtype': name, 'flops_per_s': per_s, 'source_kind': origin.kind, 'source': origin.source}
                ORDER BY name) FILTER (kind = 'compute') AS compute,
           max(per_s) FILTER (name = 'memory') AS memory, any_value(origin) FILTER (name = 'memory') AS memory_origin,
           max(per_s) FILTER (name = 'cache') AS cache, any_value(origin) FILTER (name = 'cache') AS cache_origin
    FROM chosen GROUP BY device_id, threads, torch_version, driver_version
)
SELECT c.device_id, c.threads, c.torch_version, c.driver_version, g.compute, g.memory AS memory_bytes_per_s,
       g.memory_origin.kind AS memory_source_kind, g.memory_origin.source AS memory_source,
       roof_size(s.size_bytes) AS memory_size_bytes, g.cache AS cache_bytes_per_s,
       g.cache_origin.source AS cache_source
FROM conditions c
LEFT JOIN gathered g ON g.device_id = c.device_id AND g.threads IS NOT DISTINCT FROM c.threads
                    AND g.torch_version IS NOT DISTINCT FROM c.torch_version
                    AND g.driver_version IS NOT DISTINCT FROM c.driver_version
LEFT JOIN roof_sizes s ON s.device_id = c.device_id
