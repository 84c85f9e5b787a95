-- One row a run, phase and iteration: its typical bare step. Steps of one iteration are not independent of one another; iterations are what confidence intervals are worked out from.
-- run_id: The run.
-- phase: `prefill`, `decode` or `forward`.
-- iteration: Iteration of the run, warm-up left out.
-- steps: Steps of the phase in it.
-- bare_ns: Their median wall time, in ns.
CREATE OR REPLACE VIEW phase_iterations AS
SELECT run_id, phase, iteration, count(*) AS steps, median(duration_ns) AS bare_ns
FROM steps WHERE pass = 'bare' AND NOT is_warmup AND is_duration(duration_ns) GROUP BY run_id, phase, iteration;
