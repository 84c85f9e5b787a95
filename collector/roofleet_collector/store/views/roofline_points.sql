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
CREATE OR REPLACE VIEW roofline_points AS
WITH layers_only AS NOT MATERIALIZED (
    SELECT s.*, matmul_flops + other_flops AS flops, weight_bytes + activation_bytes + kv_bytes AS bytes
    FROM layer_summary s WHERE s.ops > 0 AND s.self_ns > 0
),
roles AS (
    SELECT l.run_id, l.phase, l.role, sum(flops)::BIGINT AS flops, sum(bytes)::BIGINT AS bytes,
           sum(self_ns) AS time_ns, sum(ops) AS ops, sum(share_of_phase) AS share_of_phase,
           sum(busy_ns) AS busy_ns
    FROM layers_only l GROUP BY l.run_id, l.phase, l.role
),
points AS (
    SELECT run_id, phase, 'model' AS level, NULL AS name, NULL AS role,
           matmul_flops + other_flops AS flops, weight_bytes + activation_bytes + kv_bytes AS bytes,
           bare_p50_ns AS time_ns, ops, 1.0 AS share_of_phase, busy_ns
    FROM phase_summary
    UNION ALL
    SELECT run_id, phase, 'role', role, role, flops, bytes, time_ns, ops, share_of_phase, busy_ns FROM roles
    UNION ALL
    SELECT run_id, phase, 'layer', path, role, flops, bytes, self_ns, ops, share_of_phase, busy_ns
    FROM layers_only
),
held AS (
    SELECT p.*, f.compute_flops_per_s AS compute, f.memory_bytes_per_s AS memory,
           time_at_roof_ns(p.flops, p.bytes, f.compute_flops_per_s, f.memory_bytes_per_s) AS time_at_roof_ns
    FROM points p LEFT JOIN run_roofs f ON f.run_id = p.run_id
)
SELECT h.run_id, r.device_id, m.name AS model_name, h.phase, h.level, coalesce(h.name, m.name) AS name,
       h.role, h.flops, h.bytes, h.time_ns,
       h.flops / nullif(h.bytes, 0) AS arithmetic_intensity,
       h.flops / h.time_ns * 1e9 AS achieved_flops_per_s,
       attainable_flops(h.flops, h.bytes, h.compute, h.memory) AS attainable_flops_per_s,
       h.time_at_roof_ns / h.time_ns AS roofline_fraction,
       bound_by(h.flops, h.bytes, h.compute, h.memory, h.time_ns, h.ops, busy_ns := h.busy_ns) AS bound,
       h.share_of_phase
FROM held h
JOIN runs r ON r.run_id = h.run_id
LEFT JOIN models m ON m.model_id = r.model_id;
