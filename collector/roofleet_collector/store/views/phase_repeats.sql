-- How far quiet runs of the very same thing differ from one another: what another start of the process, another placement in memory or another hour makes, which no interval of one run can show. One row a run and phase. Name the run in WHERE.
-- run_id: The run.
-- phase: `prefill`, `decode` or `forward`.
-- repeats: Quiet runs that are done with the same model, device, threads, affinity, governor, versions of torch and transformers, dtype, variant, attention and workload, itself included; none for code of the user's own, which can change in between.
-- spread: The longest typical bare step of them over the shortest; NULL with fewer than two.
CREATE OR REPLACE VIEW phase_repeats AS
WITH medians AS (
    SELECT r.run_id, o.run_id AS other_id, s.phase, s.iteration, ln(median(s.duration_ns)) AS middle
    FROM runs r
    JOIN runs o ON o.model_id = r.model_id AND o.device_id = r.device_id AND o.dtype = r.dtype
               AND o.variant = r.variant AND o.attention IS NOT DISTINCT FROM r.attention
               AND o.threads IS NOT DISTINCT FROM r.threads AND o.batch_size = r.batch_size
               AND o.prompt_tokens = r.prompt_tokens AND o.new_tokens = r.new_tokens AND o.logits = r.logits
               AND o.engine = r.engine AND o.torch_version IS NOT DISTINCT FROM r.torch_version
               AND o.transformers_version IS NOT DISTINCT FROM r.transformers_version
               AND o.affinity IS NOT DISTINCT FROM r.affinity AND o.governor IS NOT DISTINCT FROM r.governor
    JOIN steps s ON s.run_id = o.run_id
    -- code of the user's own can change without any of these: two runs of it need not be repeats
    WHERE r.engine NOT IN ('module', 'watch') AND o.status = 'done' AND s.pass = 'bare' AND NOT s.is_warmup
      AND conditions_noise(o.other_load, o.throttled, o.clock_low_hz, o.clock_high_hz) IS NULL
    GROUP BY r.run_id, o.run_id, s.phase, s.iteration
),
typical AS (
    SELECT run_id, phase, avg(middle ORDER BY iteration) AS middle FROM medians GROUP BY run_id, other_id, phase
    HAVING count(*) >= 3
       AND interval_noise(exp(-mean_margin(var_samp(middle), count(*))),
                          exp(mean_margin(var_samp(middle), count(*)))) IS NULL
)
SELECT run_id, phase, count(*) AS repeats,
       CASE WHEN count(*) > 1 THEN exp(max(middle) - min(middle)) END AS spread
FROM typical GROUP BY run_id, phase;
