-- How time per output token grows with the context: one row a run and length of the cache, from the bare steps.
-- run_id: The run.
-- cache_tokens: Tokens of each sequence in the cache before the step.
-- steps: Decode steps measured at that length.
-- p50_ns: Median time of such a step, in ns.
-- p5_ns: 5th percentile of the same, in ns.
-- p95_ns: 95th percentile of the same, in ns.
CREATE OR REPLACE VIEW decode_by_context AS
SELECT run_id, cache_tokens, count(*) AS steps, median(duration_ns) AS p50_ns,
       quantile_cont(duration_ns, 0.05) AS p5_ns, quantile_cont(duration_ns, 0.95) AS p95_ns
FROM steps WHERE pass = 'bare' AND phase = 'decode' AND NOT is_warmup AND is_duration(duration_ns)
GROUP BY run_id, cache_tokens;
