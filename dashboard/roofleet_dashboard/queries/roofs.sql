-- The roofs that a run is held against: those in force under its conditions, and its device's datasheet beside them.
SELECT f.device_id, f.device_name, f.device_kind, f.hostname, f.kind, f.dtype, f.accumulate_dtype, f.memory_level,
       f.flops_per_s, f.bytes_per_s, f.source_kind, f.source, f.measured_at, f.other_load
FROM roofline_roofs f
JOIN runs r ON r.device_id = f.device_id AND (f.source_kind = 'datasheet' OR (
    f.threads IS NOT DISTINCT FROM r.threads AND f.torch_version IS NOT DISTINCT FROM r.torch_version
    AND f.driver_version IS NOT DISTINCT FROM r.driver_version))
WHERE r.run_id = ?
ORDER BY f.kind DESC, f.dtype, f.source_kind = 'datasheet', f.memory_level
