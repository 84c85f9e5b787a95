-- What times alone say of phases: how sure they are, what timing cost and what layers explain.
CREATE OR REPLACE VIEW timed_phases AS
WITH ranges AS (
    SELECT f.*, r.batch_size, CASE WHEN f.phase = 'decode' THEN 1 ELSE r.prompt_tokens END AS phase_tokens,
           CASE WHEN f.steps > 0
                THEN conditions_noise(r.other_load, r.throttled, r.clock_low_hz, r.clock_high_hz) END AS conditions,
           f.explained_share * f.overhead AS coverage,
           ln(f.overhead_high / f.overhead_low) / 2 AS pair_margin,
           mean_margin(f.typical_variance, f.typical_iterations) AS margin
    FROM phase_figures f JOIN runs r ON r.run_id = f.run_id
),
ends AS (
    SELECT *, exp(typical_log) AS typical, exp(typical_log - margin) AS low, exp(typical_log + margin) AS high,
           sqrt(pair_margin ** 2 + explained_margin ** 2) AS coverage_margin,
           greatest(pair_margin, sqrt(pair_margin ** 2 + coalesce(explained_margin, 0) ** 2)) AS widest
    FROM ranges
),
named AS (SELECT *, interval_noise(low, high) AS interval_noise FROM ends)
SELECT *, unknown_pairs(steps, pairs, widest) AS pairs_unknown,
       nullif(concat_ws('; ', interval_noise, conditions), '') AS noise
FROM named;
