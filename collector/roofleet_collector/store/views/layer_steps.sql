-- One row a layer and timed step: what it took, with what timing its layers cost taken off as far as that was calibrated. It needs the raw spans: a run whose spans retention let go (run_summary.spans_let_go_at) has no rows here.
-- run_id: The run.
-- phase: `prefill`, `decode` or `forward`.
-- iteration: Iteration of the run.
-- step_index: Step inside the phase.
-- layer_group: Group of layers timed in that step, from 0.
-- path: The layer's path in the module tree; the empty string is the model itself.
-- calls: How often the step calls the layer.
-- duration_ns: Time inside the layer, the layers inside it included, less the timer's cost of itself and of every layer timed inside it in that step, in ns.
-- self_ns: Time inside the layer less the layers inside it and the timer's cost; NULL where those were not timed in that step, in ns.
-- timer_ns: The timer's cost that is taken off self_ns, in ns.
CREATE OR REPLACE VIEW layer_steps AS
WITH counted AS (
    -- the spans that begin before this one ends lie inside it
    SELECT *, count(*) OVER (PARTITION BY run_id, phase, iteration, step_index ORDER BY start_ns
                             RANGE BETWEEN 1 FOLLOWING AND greatest(duration_ns - 1, 0) FOLLOWING) AS inside
    FROM spans WHERE is_interval(start_ns, duration_ns, self_ns)
),
calibrated AS (
    SELECT s.*, coalesce(r.timer_inside_ns, 0) AS inside_ns, coalesce(r.timer_outside_ns, 0) AS outside_ns,
           own_ns(s.self_ns, s.inner_calls, r.timer_outside_ns, r.timer_inside_ns) AS own_ns
    FROM counted s LEFT JOIN runs r ON r.run_id = s.run_id
),
corrected AS (
    SELECT *, TRY_CAST(greatest(round(duration_ns - inside_ns - inside * (inside_ns + outside_ns)), 0) AS BIGINT)
                  AS true_ns
    FROM calibrated
)
SELECT c.run_id, c.phase, c.iteration, c.step_index, coalesce(any_value(s.layer_group), 0) AS layer_group,
       c.path, count(*) AS calls, TRY_CAST(sum(c.true_ns) AS BIGINT) AS duration_ns,
       TRY_CAST(sum(c.own_ns) AS BIGINT) AS self_ns,
       TRY_CAST(sum(c.self_ns::HUGEINT - c.own_ns) AS BIGINT) AS timer_ns
FROM corrected c
LEFT JOIN steps s ON s.run_id = c.run_id AND s.phase = c.phase AND s.iteration = c.iteration
                 AND s.step_index = c.step_index AND s.pass = 'timed'
GROUP BY c.run_id, c.phase, c.iteration, c.step_index, c.path;
