-- What changed between two runs of one model in each layer: one row an ordered pair of runs, phase and path. Name both runs in WHERE. A layer of one of them only has NULL on the other side. Each verdict is at 95 % by itself: of many layers that did not change, one in forty will seem faster and as many slower if the difference is above 2 %.
-- baseline_run_id: The run that is compared with.
-- run_id: The run that is compared.
-- phase: `prefill`, `decode` or `forward`.
-- path: The layer's path in the module tree; the empty string is the model itself.
-- module_type: Class of the module, in the run where it has the layer.
-- role: What the layer is for.
-- block_index: Number of the repeated block it belongs to; NULL outside them.
-- baseline_ns: The layer's own time in a typical step of the baseline, in ns.
-- self_ns: The same in the run, in ns.
-- ratio: self_ns over baseline_ns; below 1 is faster.
-- low: Lower end of its 95 % confidence interval (Welch's t over iterations, on logarithms; of runs that took turns, by the ranks of the ratios of steps side by side); NULL with fewer than 3 iterations of either.
-- high: Upper end of the same.
-- verdict: `faster`, `slower`, `same` (the interval is within 2 % of no change) or `unclear`.
-- why: Why the verdict is `unclear`.
-- baseline_peak_memory_bytes: Most live cache and activation bytes while the layer ran, in the baseline, in bytes.
-- peak_memory_bytes: The same in the run, in bytes.
-- baseline_matmul_flops: The layer's own matrix-product and attention work in the baseline, in FLOP.
-- matmul_flops: The same in the run, in FLOP.
-- baseline_bytes: Bytes its own ops move in the baseline.
-- bytes: The same in the run.
-- baseline_roofline_fraction: Time at the roof over its own time, in the baseline.
-- roofline_fraction: The same in the run.
-- baseline_bound: What binds it in the baseline.
-- bound: The same in the run.
CREATE OR REPLACE VIEW layer_comparison AS
WITH sides AS NOT MATERIALIZED (
    SELECT l.run_id, l.phase, l.path, l.module_type, l.role, l.block_index, l.typical_log, l.typical_variance,
           l.typical_iterations, l.peak_memory_bytes, l.matmul_flops,
           l.weight_bytes + l.activation_bytes + l.kv_bytes AS bytes, l.roofline_fraction, l.bound, p.noise,
           -- repeats of a layer differ more than those of the whole step: three times as much was measured
           w.spread ** 3 AS spread
    FROM judged_layers l
    LEFT JOIN timed_phases p ON p.run_id = l.run_id AND p.phase = l.phase
    LEFT JOIN phase_repeats w ON w.run_id = l.run_id AND w.phase = l.phase
),
pairs AS NOT MATERIALIZED (
    SELECT a.run_id AS baseline_run_id, b.run_id
    FROM runs a
    JOIN models ma ON ma.model_id = a.model_id
    JOIN models mb ON mb.name = ma.name
    JOIN runs b ON b.model_id = mb.model_id AND b.run_id <> a.run_id
),
there AS NOT MATERIALIZED (
    SELECT run_id, phase, path FROM layer_figures WHERE layer_index IS NOT NULL
),
places AS (
    SELECT k.baseline_run_id, k.run_id, s.phase, s.path FROM pairs k JOIN there s ON s.run_id = k.run_id
    UNION ALL
    SELECT k.baseline_run_id, k.run_id, s.phase, s.path FROM pairs k JOIN there s ON s.run_id = k.baseline_run_id
    LEFT JOIN there o ON o.run_id = k.run_id AND o.phase = s.phase AND o.path = s.path
    WHERE o.run_id IS NULL
),
compared AS (
    SELECT k.*, coalesce(b.module_type, a.module_type) AS module_type, coalesce(b.role, a.role) AS role,
           coalesce(b.block_index, a.block_index) AS block_index,
           a.typical_log AS middle_a, b.typical_log AS middle_b,
           unnest(beside(a.typical_log, a.typical_variance, a.typical_iterations, a.noise, a.spread,
                         b.typical_log, b.typical_variance, b.typical_iterations, b.noise, b.spread,
                         t.ratio, t.low, t.high)),
           a.peak_memory_bytes AS baseline_peak_memory_bytes, b.peak_memory_bytes,
           a.matmul_flops AS baseline_matmul_flops, b.matmul_flops, a.bytes AS baseline_bytes, b.bytes,
           a.roofline_fraction AS baseline_roofline_fraction, b.roofline_fraction,
           a.bound AS baseline_bound, b.bound
    FROM places k
    LEFT JOIN sides a ON a.run_id = k.baseline_run_id AND a.phase = k.phase AND a.path = k.path
    LEFT JOIN sides b ON b.run_id = k.run_id AND b.phase = k.phase AND b.path = k.path
    LEFT JOIN turn_figures t ON t.baseline_run_id = k.baseline_run_id AND t.run_id = k.run_id
                                  AND t.phase = k.phase AND t.path = k.path
)
SELECT baseline_run_id, run_id, phase, path, module_type, role, block_index,
       exp(middle_a) AS baseline_ns, exp(middle_b) AS self_ns, ratio,
       low, high,
       verdict(ratio, low, high, baseline_noise, noise, spread := spread) AS verdict,
       CASE WHEN took_turns AND low IS NULL THEN 'fewer than 6 pairs of steps'
            ELSE why_unclear(ratio, low, high, baseline_noise, noise, spread := spread) END AS why,
       baseline_peak_memory_bytes, peak_memory_bytes, baseline_matmul_flops, matmul_flops,
       baseline_bytes, bytes, baseline_roofline_fraction, roofline_fraction, baseline_bound, bound
FROM compared;
