-- What changed between two runs of one model in each phase: one row an ordered pair of runs and phase. Name both runs in WHERE. A phase of one of them only has NULL on the other side.
-- baseline_run_id: The run that is compared with.
-- run_id: The run that is compared.
-- phase: `prefill`, `decode` or `forward`.
-- baseline_ns: Typical bare step of the baseline, in ns.
-- bare_ns: Typical bare step of the run, in ns.
-- ratio: bare_ns over baseline_ns; below 1 is faster.
-- low: Lower end of its 95 % confidence interval (Welch's t over iterations, on logarithms; of runs that took turns, by the ranks of the ratios of steps side by side); NULL with fewer than 3 iterations of either.
-- high: Upper end of the same.
-- verdict: `faster`, `slower`, `same` (the interval is within 2 % of no change) or `unclear`.
-- why: Why the verdict is `unclear`.
-- baseline_peak_bytes: Most memory of the phase in the baseline, in bytes.
-- peak_bytes: The same in the run, in bytes.
-- baseline_matmul_flops: Matrix-product and attention work of a step of the baseline, in FLOP.
-- matmul_flops: The same of the run, in FLOP.
-- baseline_bytes: Bytes a step of the baseline moves.
-- bytes: Bytes a step of the run moves.
-- baseline_weight_bytes: Weights a step of the baseline reads, in bytes.
-- weight_bytes: Weights a step of the run reads, in bytes.
-- baseline_roofline_fraction: Time at the roof over the time taken, in the baseline.
-- roofline_fraction: The same in the run.
CREATE OR REPLACE VIEW phase_comparison AS
WITH sides AS NOT MATERIALIZED (
    SELECT p.run_id, p.phase, p.typical_log, p.typical_variance, p.typical_iterations, p.noise, w.spread, m.peak_bytes,
           p.matmul_flops, p.weight_bytes, p.weight_bytes + p.activation_bytes + p.kv_bytes AS bytes,
           p.roofline_fraction
    FROM judged_phases p
    LEFT JOIN phase_repeats w ON w.run_id = p.run_id AND w.phase = p.phase
    LEFT JOIN phase_memory m ON m.run_id = p.run_id AND m.phase = p.phase
),
pairs AS NOT MATERIALIZED (
    SELECT a.run_id AS baseline_run_id, b.run_id, x.phase
    FROM runs a
    JOIN models ma ON ma.model_id = a.model_id
    JOIN models mb ON mb.name = ma.name
    JOIN runs b ON b.model_id = mb.model_id AND b.run_id <> a.run_id
    CROSS JOIN (VALUES ('prefill'), ('decode'), ('forward')) x(phase)
),
compared AS (
    SELECT k.*, a.typical_log AS middle_a, b.typical_log AS middle_b,
           unnest(beside(a.typical_log, a.typical_variance, a.typical_iterations, a.noise, a.spread,
                         b.typical_log, b.typical_variance, b.typical_iterations, b.noise, b.spread,
                         t.ratio, t.low, t.high)),
           a.peak_bytes AS baseline_peak_bytes, b.peak_bytes,
           a.matmul_flops AS baseline_matmul_flops, b.matmul_flops, a.bytes AS baseline_bytes, b.bytes,
           a.weight_bytes AS baseline_weight_bytes, b.weight_bytes,
           a.roofline_fraction AS baseline_roofline_fraction, b.roofline_fraction
    FROM pairs k
    LEFT JOIN sides a ON a.run_id = k.baseline_run_id AND a.phase = k.phase
    LEFT JOIN sides b ON b.run_id = k.run_id AND b.phase = k.phase
    LEFT JOIN turn_figures t ON t.baseline_run_id = k.baseline_run_id AND t.run_id = k.run_id
                                  AND t.phase = k.phase AND t.path IS NULL
    WHERE a.run_id IS NOT NULL OR b.run_id IS NOT NULL
)
SELECT baseline_run_id, run_id, phase, exp(middle_a) AS baseline_ns, exp(middle_b) AS bare_ns, ratio,
       low, high,
       verdict(ratio, low, high, baseline_noise, noise, spread := spread) AS verdict,
       CASE WHEN took_turns AND low IS NULL THEN 'fewer than 6 pairs of steps'
            ELSE why_unclear(ratio, low, high, baseline_noise, noise, spread := spread) END AS why,
       baseline_peak_bytes, peak_bytes, baseline_matmul_flops, matmul_flops, baseline_bytes, bytes,
       baseline_weight_bytes, weight_bytes, baseline_roofline_fraction, roofline_fraction
FROM compared;
