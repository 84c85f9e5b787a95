-- How far quiet runs of the very same thing differ from one another: what another start of the process, another placement in memory or another hour makes, which no interval of one run can show. One row a run and phase.
-- run_id: The run.
-- phase: `prefill`, `decode` or `forward`.
-- repeats: Quiet runs that are done with the same model, device, threads, affinity, governor, versions of torch and transformers, dtype, variant, attention and workload, itself included; none for code of the user's own, which can change in between.
-- spread: The longest typical bare step of them over the shortest; NULL with fewer than two.
CREATE OR REPLACE VIEW phase_repeats AS
WITH setups AS (
    SELECT run_id, model_id, device_id, status,
           conditions_noise(other_load, throttled, clock_low_hz, clock_high_hz) AS conditions,
           {'dtype': dtype, 'variant': variant, 'attention': attention, 'threads': threads, 'batch_size': batch_size,
            'prompt_tokens': prompt_tokens, 'new_tokens': new_tokens, 'logits': logits, 'engine': engine,
            'torch': torch_version, 'transformers': transformers_version, 'affinity': affinity,
            'governor': governor} AS setup
    -- code of the user's own can change without any of these: two runs of it need not be repeats
    FROM runs WHERE engine NOT IN ('module', 'watch')
),
repeated AS (
    SELECT s.model_id, s.device_id, s.setup, f.phase, count(*) AS repeats, max(f.typical_log) AS longest,
           min(f.typical_log) AS shortest
    FROM setups s JOIN phase_figures f ON f.run_id = s.run_id
    WHERE s.status = 'done' AND s.conditions IS NULL AND f.typical_iterations >= 3
      AND interval_noise(exp(-mean_margin(f.typical_variance, f.typical_iterations)),
                         exp(mean_margin(f.typical_variance, f.typical_iterations))) IS NULL
    GROUP BY s.model_id, s.device_id, s.setup, f.phase
)
SELECT s.run_id, q.phase, q.repeats, CASE WHEN q.repeats > 1 THEN exp(q.longest - q.shortest) END AS spread
FROM setups s
JOIN repeated q ON q.model_id = s.model_id AND q.device_id = s.device_id AND q.setup = s.setup;
