-- The two roofs a run is held against: measured on its device where there is one, else the datasheet's.
-- run_id: The run.
-- compute_flops_per_s: Compute roof of the run's dtype on its device, in FLOP/s, dense; that of int8 for int8-dynamic, NULL where none is known.
-- compute_source_kind: `measured` or `datasheet`.
-- compute_source: What was measured and how, or the datasheet's address.
-- memory_bytes_per_s: Bandwidth roof of the device's memory, in bytes/s.
-- memory_source_kind: `measured` or `datasheet`.
-- memory_source: What was measured and how, or the datasheet's address.
CREATE OR REPLACE VIEW run_roofs AS
WITH best_compute AS (
    SELECT device_id, dtype,
           arg_min(flops_per_s, preference) AS flops_per_s,
           arg_min(source_kind, preference) AS source_kind,
           arg_min(source, preference) AS source
    FROM (SELECT *, CASE source_kind WHEN 'measured' THEN 0 ELSE 1 END AS preference
          FROM roofs WHERE kind = 'compute')
    GROUP BY device_id, dtype
),
best_memory AS (
    SELECT device_id,
           arg_min(bytes_per_s, preference) AS bytes_per_s,
           arg_min(source_kind, preference) AS source_kind,
           arg_min(source, preference) AS source
    FROM (SELECT *, CASE source_kind WHEN 'measured' THEN 0 ELSE 1 END AS preference
          FROM roofs WHERE kind = 'memory')
    GROUP BY device_id
)
SELECT r.run_id,
       c.flops_per_s AS compute_flops_per_s,
       c.source_kind AS compute_source_kind,
       c.source AS compute_source,
       m.bytes_per_s AS memory_bytes_per_s,
       m.source_kind AS memory_source_kind,
       m.source AS memory_source
FROM runs r
-- int8-dynamic multiplies in int8: held against the roof of its dtype it could pass it
LEFT JOIN best_compute c ON c.device_id = r.device_id
    AND c.dtype = CASE WHEN r.variant LIKE '%int8-dynamic%' THEN 'int8' ELSE r.dtype END
LEFT JOIN best_memory m ON m.device_id = r.device_id;
