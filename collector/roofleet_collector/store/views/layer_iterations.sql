-- One row a run, phase, layer and iteration: the layer's own time in a typical step. Of a run whose spans retention let go it has what was kept of them.
-- run_id: The run.
-- phase: `prefill`, `decode` or `forward`.
-- path: The layer's path in the module tree; the empty string is the model itself.
-- iteration: Iteration of the run.
-- steps: Steps of the phase in which the layer's own time was taken.
-- self_ns: Their median own time, the timer's cost taken off, in ns.
CREATE OR REPLACE VIEW layer_iterations AS
SELECT run_id, phase, path, iteration, count(*) AS steps, median(self_ns) AS self_ns
FROM (SELECT s.run_id, s.phase, s.path, s.iteration, s.step_index,
             sum(own_ns(s.self_ns, s.inner_calls, r.timer_outside_ns, r.timer_inside_ns)) AS self_ns
      FROM spans s LEFT JOIN runs r ON r.run_id = s.run_id
      WHERE s.self_ns IS NOT NULL AND is_interval(s.start_ns, s.duration_ns, s.self_ns)
      GROUP BY s.run_id, s.phase, s.path, s.iteration, s.step_index)
GROUP BY run_id, phase, path, iteration
UNION ALL
SELECT run_id, phase, path, iteration, steps, self_ns FROM kept_layer_iterations WHERE steps > 0;
