-- Memory of one phase of a run: what it holds at its peak, where the peak is, and the layer that adds most.
-- run_id: The run.
-- phase: `prefill`, `decode` or `forward`.
-- weight_bytes: Parameters and buffers, as stored, in bytes.
-- kv_bytes: Key-value cache alive at the peak, in bytes.
-- activation_bytes: Other tensors alive at the peak, in bytes.
-- peak_bytes: Most weights, cache and activations alive at once, in bytes.
-- peak_step_index: Step of the phase in which that was.
-- peak_path: Layer that ran then.
-- peak_op: Op whose output made the peak.
-- workspace_bytes: What kernels took beside tensors; NULL where no allocator tells, in bytes.
-- allocator_peak_bytes: Most the device's allocator gave out at once, in bytes.
-- allocator_reserved_bytes: Most it took from the device at once, in bytes.
-- device_share: peak_bytes over the memory of the device.
-- largest_path: The layer without layers inside that adds most while it runs.
-- largest_bytes: What it adds: most alive while it ran less what was alive when it began, in bytes.
CREATE OR REPLACE VIEW memory_summary AS
WITH largest AS (
    SELECT m.run_id, m.phase, arg_max(m.path, m.peak_bytes::HUGEINT - m.enter_bytes) AS path,
           TRY_CAST(max(m.peak_bytes::HUGEINT - m.enter_bytes) AS BIGINT) AS bytes
    FROM layer_memory m JOIN layers l ON l.run_id = m.run_id AND l.path = m.path
    WHERE l.is_leaf GROUP BY m.run_id, m.phase
)
SELECT p.run_id, p.phase, p.weight_bytes, p.kv_bytes, p.activation_bytes, p.peak_bytes, p.peak_step_index,
       p.peak_path, p.peak_op, p.workspace_bytes, p.allocator_peak_bytes, p.allocator_reserved_bytes,
       p.peak_bytes / d.memory_bytes AS device_share, g.path AS largest_path, g.bytes AS largest_bytes
FROM phase_memory p
LEFT JOIN runs r ON r.run_id = p.run_id
LEFT JOIN devices d ON d.device_id = r.device_id
LEFT JOIN largest g ON g.run_id = p.run_id AND g.phase = p.phase;
