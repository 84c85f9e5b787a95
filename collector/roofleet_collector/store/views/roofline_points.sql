-- What a roofline chart draws for a run and phase: a point for the whole model, one a role, one a layer.
-- run_id: The run.
-- device_id: Device it ran on; its roofs are in roofline_roofs.
-- model_name: Model that ran.
-- phase: `prefill`, `decode` or `forward`.
-- level: `model`, `role` or `layer`.
-- name: The model's name, the role, or the layer's path.
-- role: The layer's role; NULL for the model.
-- flops: Work of a step, matrix products and the rest, in FLOP.
-- bytes: Bytes a step moves.
-- time_ns: Time it takes: the median bare step for the model, the sum of self times for a role, self time for a layer, in ns.
-- arithmetic_intensity: FLOP per byte moved: the chart's horizontal axis.
-- achieved_flops_per_s: FLOP over time: the chart's vertical axis.
-- attainable_flops_per_s: Height of the roof above the point.
-- roofline_fraction: Time at the roof over the time taken.
-- bound: `compute`, `memory` or `overhead`.
-- share_of_phase: Share of the phase's time; 1 for the model.
-- fault: Why the point lies above its roof, with both numbers: the roof, its work or its time is at fault; NULL where it does not.
-- product_dtypes: JSON object of the dtypes that its products are computed in, each with its share of their FLOP; NULL for a role.
CREATE OR REPLACE VIEW roofline_points AS
WITH layers_only AS NOT MATERIALIZED (
    SELECT s.*, matmul_flops + other_flops AS flops, weight_bytes + activation_bytes + kv_bytes AS bytes
    FROM layer_summary s WHERE s.ops > 0 AND s.self_ns > 0
),
roles AS (
    SELECT l.run_id, l.phase, l.role, sum(flops)::BIGINT AS flops, sum(bytes)::BIGINT AS bytes,
           sum(self_ns ORDER BY path) AS time_ns, sum(ops) AS ops,
           sum(share_of_phase ORDER BY path) AS share_of_phase,
           sum(busy_ns) AS busy_ns, sum(matmul_flops - needed_flops)::BIGINT AS skipped_flops,
           bool_or(guessed) AS guessed,
           sum(unknown_ops) AS unknown_ops,
           -- each layer may take its own time at its own roof
           coalesce(sum(flops) / nullif(sum(flops / compute_roof_flops_per_s ORDER BY path), 0),
                    max(compute_roof_flops_per_s)) AS compute,
           coalesce(sum(bytes) / nullif(sum(bytes / memory_roof_bytes_per_s ORDER BY path), 0),
                    max(memory_roof_bytes_per_s)) AS memory
    FROM layers_only l GROUP BY l.run_id, l.phase, l.role
),
points AS (
    SELECT run_id, phase, 'model' AS level, NULL AS name, NULL AS role,
           matmul_flops + other_flops AS flops, weight_bytes + activation_bytes + kv_bytes AS bytes,
           bare_p50_ns AS time_ns, ops, 1.0 AS share_of_phase, busy_ns, unknown_ops,
           compute_roof_flops_per_s AS compute, memory_roof_bytes_per_s AS memory,
           matmul_flops - needed_flops AS skipped_flops, guessed, product_dtypes, fault
    FROM phase_summary
    UNION ALL
    SELECT run_id, phase, 'role', role, role, flops, bytes, time_ns, ops, share_of_phase, busy_ns, unknown_ops,
           compute, memory, skipped_flops, guessed, NULL, NULL
    FROM roles
    UNION ALL
    SELECT run_id, phase, 'layer', path, role, flops, bytes, self_ns, ops, share_of_phase, busy_ns, unknown_ops,
           compute_roof_flops_per_s, memory_roof_bytes_per_s, matmul_flops - needed_flops, guessed, product_dtypes,
           NULL
    FROM layers_only
),
held AS (
    SELECT p.*, time_at_roof_ns(p.flops, p.bytes, p.compute, p.memory) AS time_at_roof_ns,
           concat_ws('; ', point_doubt(p.time_ns, p.unknown_ops, p.guessed),
                     phase_doubt(s.noise, s.low, CASE WHEN s.pairs_unknown IS NULL THEN s.coverage END)) AS doubt
    FROM points p LEFT JOIN timed_phases s ON s.run_id = p.run_id AND s.phase = p.phase
)
SELECT h.run_id, r.device_id, m.name AS model_name, h.phase, h.level, coalesce(h.name, m.name) AS name,
       h.role, h.flops, h.bytes, h.time_ns,
       h.flops / nullif(h.bytes, 0) AS arithmetic_intensity,
       h.flops / h.time_ns * 1e9 AS achieved_flops_per_s,
       attainable_flops(h.flops, h.bytes, h.compute, h.memory) AS attainable_flops_per_s,
       h.time_at_roof_ns / h.time_ns AS roofline_fraction,
       bound_by(h.flops, h.bytes, h.compute, h.memory, h.time_ns, h.ops, busy_ns := h.busy_ns) AS bound,
       h.share_of_phase,
       coalesce(h.fault, roof_fault(h.flops, h.skipped_flops, h.bytes, h.compute, h.memory, h.time_ns,
                                    nullif(h.doubt, ''))) AS fault, h.product_dtypes
FROM held h
JOIN runs r ON r.run_id = h.run_id
LEFT JOIN models m ON m.model_id = r.model_id;
