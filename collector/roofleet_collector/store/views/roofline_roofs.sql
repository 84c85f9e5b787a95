-- The roofs a roofline chart draws: every ceiling of every device, with its source.
-- device_id: The device.
-- device_name: Its name.
-- device_kind: `cpu`, `gpu` or `tpu`.
-- hostname: Host it sits in.
-- kind: `compute` or `memory`.
-- dtype: Operand type of a compute roof.
-- accumulate_dtype: Type that sums are kept in, where it decides the figure.
-- memory_level: Memory of a memory roof.
-- flops_per_s: Height of a compute roof, dense, in FLOP/s.
-- bytes_per_s: Height of a memory roof, in bytes/s.
-- source_kind: `measured` or `datasheet`.
-- source: What was measured and how, or the datasheet's address.
-- measured_at: When it was measured.
CREATE OR REPLACE VIEW roofline_roofs AS
SELECT f.device_id, d.name AS device_name, d.kind AS device_kind, h.hostname, f.kind, f.dtype,
       f.accumulate_dtype, f.memory_level, f.flops_per_s, f.bytes_per_s, f.source_kind, f.source,
       f.measured_at
FROM roofs f
LEFT JOIN devices d ON d.device_id = f.device_id
LEFT JOIN hosts h ON h.host_id = d.host_id;
