-- The data that the roof of each device's memory was measured on: less than that may stay in its caches.
-- device_id: The device.
-- memory_level: What its memory is called: `dram` of a processor, `device` of an accelerator.
-- size_bytes: The least size of a tensor it was measured on, in bytes; NULL where an older agent did not say.
CREATE OR REPLACE VIEW roof_sizes AS
SELECT device_id, any_value(memory_level) AS memory_level, min(size_bytes) AS size_bytes
FROM roofs WHERE kind = 'memory' AND source_kind = 'measured' AND memory_level IS DISTINCT FROM 'cache'
GROUP BY device_id;
