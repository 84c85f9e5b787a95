-- The roofs of one device. Where a roof was measured, the datasheet's is kept beside it.
SELECT device_id, device_name, device_kind, hostname, kind, dtype, accumulate_dtype, memory_level,
       flops_per_s, bytes_per_s, source_kind, source, measured_at
FROM roofline_roofs
WHERE device_id = ?
ORDER BY kind DESC, dtype, source_kind DESC
