-- run_figures of the runs being settled.
WITH counted AS (
    SELECT run_id, count(DISTINCT iteration) AS iterations
    FROM live_steps WHERE pass = 'bare' AND NOT is_warmup AND is_duration(duration_ns) GROUP BY run_id
),
-- an iteration is a prefill or forward and the decode steps; of each kind there is a typical one
lasting AS (
    SELECT i.run_id, sum(i.step_ns * steps_of(i.phase, r.new_tokens) ORDER BY i.phase) AS iteration_ns
    FROM (SELECT run_id, phase, median(mean_ns) AS step_ns
          FROM (SELECT run_id, phase, iteration, avg(duration_ns) AS mean_ns FROM live_steps
                WHERE pass = 'bare' AND NOT is_warmup AND is_duration(duration_ns)
                GROUP BY run_id, phase, iteration)
          GROUP BY run_id, phase) i
    JOIN runs r ON r.run_id = i.run_id
    GROUP BY i.run_id
),
-- over the iteration's own median, so that a machine that slows down between iterations makes no slope
lengths AS (
    SELECT s.run_id, s.cache_tokens, median(s.duration_ns / i.bare_ns) AS relative
    FROM live_steps s JOIN live_phase_iterations i USING (run_id, phase, iteration)
    WHERE s.pass = 'bare' AND s.phase = 'decode' AND NOT s.is_warmup AND is_duration(s.duration_ns)
    GROUP BY s.run_id, s.cache_tokens
),
growth AS (
    SELECT run_id, slope AS per_token
    FROM (SELECT run_id, count(*) AS n, regr_slope(relative, cache_tokens ORDER BY cache_tokens) AS slope,
                 regr_syy(relative, cache_tokens ORDER BY cache_tokens) AS syy,
                 regr_sxx(relative, cache_tokens ORDER BY cache_tokens) AS sxx
          FROM lengths GROUP BY run_id)
    WHERE n >= 4 AND abs(slope) > t_quantile(n - 2) * sqrt(greatest(syy / sxx - slope ** 2, 0) / (n - 2))
)
SELECT u.run_id, {FIGURES_VERSION} AS formula_version, c.iterations, t.iteration_ns, g.per_token AS growth_per_cached_token,
       now() AS settled_at
FROM settling u
LEFT JOIN counted c ON c.run_id = u.run_id
LEFT JOIN lasting t ON t.run_id = u.run_id
LEFT JOIN growth g ON g.run_id = u.run_id
