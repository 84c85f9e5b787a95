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
WITH named AS (
    SELECT *, map_from_entries(list_transform(compute, lambda c: (c.dtype, c.flops_per_s))) AS compute_roofs,
           map_from_entries(list_transform(compute, lambda c: (
               c.dtype, {'kind': c.source_kind, 'source': c.source}))) AS origins
    FROM roofs_in_force
)
SELECT r.run_id,
       at_key(f.compute_roofs, multiplied_in(r.dtype, r.variant)) AS compute_flops_per_s,
       at_key(f.origins, multiplied_in(r.dtype, r.variant)).kind AS compute_source_kind,
       at_key(f.origins, multiplied_in(r.dtype, r.variant)).source AS compute_source,
       f.memory_bytes_per_s, f.memory_source_kind, f.memory_source, f.compute_roofs, f.memory_size_bytes,
       f.cache_bytes_per_s, f.cache_source
FROM runs r
LEFT JOIN named f ON f.device_id = r.device_id AND f.threads IS NOT DISTINCT FROM r.threads
                 AND f.torch_version IS NOT DISTINCT FROM r.torch_version
                 AND f.driver_version IS NOT DISTINCT FROM r.driver_version;
