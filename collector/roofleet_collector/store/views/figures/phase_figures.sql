-- phase_figures of the runs being settled.
WITH bare AS (
    SELECT run_id, phase, count(*) AS steps, median(duration_ns) AS p50,
           quantile_cont(duration_ns, 0.05) AS p5, quantile_cont(duration_ns, 0.95) AS p95,
           quantile_cont(duration_ns, 0.99) AS p99,
           any_value(tokens) AS tokens
    FROM live_steps WHERE pass = 'bare' AND NOT is_warmup AND is_duration(duration_ns) GROUP BY run_id, phase
),
typical AS (
    SELECT run_id, phase, avg(ln(bare_ns) ORDER BY iteration) AS middle,
           var_samp(ln(bare_ns) ORDER BY iteration) AS variance, count(*) AS n
    FROM live_phase_iterations GROUP BY run_id, phase
),
timed AS (
    SELECT run_id, phase, median(duration_ns) AS p50
    FROM live_steps WHERE pass = 'timed' AND NOT is_warmup AND is_duration(duration_ns) GROUP BY run_id, phase
),
-- a timed step and the bare ones right before and after it in the steps' own order; where bare steps have
-- iterations or calls of their own, the one of the same number
pairs AS (
    SELECT t.run_id, t.phase, t.iteration, t.step_index, t.duration_ns / b.duration_ns AS ratio
    FROM live_steps t
    JOIN live_steps b ON b.run_id = t.run_id AND b.phase = t.phase AND b.iteration = t.iteration
                     AND b.step_index BETWEEN t.step_index::HUGEINT - 1 AND t.step_index::HUGEINT + 1
    WHERE b.pass = 'bare' AND t.pass = 'timed' AND NOT b.is_warmup AND NOT t.is_warmup
      AND is_duration(b.duration_ns) AND is_duration(t.duration_ns)
    QUALIFY abs(b.step_index::HUGEINT - t.step_index) = min(abs(b.step_index::HUGEINT - t.step_index))
            OVER (PARTITION BY t.run_id, t.phase, t.iteration, t.step_index)
),
paired AS (
    SELECT run_id, phase, median(ratio) AS overhead, count(DISTINCT (iteration, step_index)) AS pairs,
           median_interval(list(ratio ORDER BY ratio), count(DISTINCT (iteration, step_index))) AS reach
    FROM pairs GROUP BY run_id, phase
),
-- what of a timed step its group of layers explains: of the same step, so that no other step's time is in it
shares AS (
    SELECT e.run_id, e.phase, coalesce(t.layer_group, 0) AS layer_group, count(*) AS n,
           avg(e.explained_ns / t.duration_ns ORDER BY e.iteration, e.step_index) AS share,
           var_samp(e.explained_ns / t.duration_ns ORDER BY e.iteration, e.step_index) / count(*) AS square
    FROM (SELECT s.run_id, s.phase, s.iteration, s.step_index, sum(own_ns(
                     s.self_ns, s.inner_calls, r.timer_outside_ns, r.timer_inside_ns)) AS explained_ns
          FROM live_spans s LEFT JOIN runs r ON r.run_id = s.run_id
          WHERE s.path <> '' AND is_interval(s.start_ns, s.duration_ns, s.self_ns)
          GROUP BY s.run_id, s.phase, s.iteration, s.step_index) e
    JOIN live_steps t USING (run_id, phase, iteration, step_index)
    WHERE t.pass = 'timed' AND NOT t.is_warmup AND is_duration(t.duration_ns)
    GROUP BY e.run_id, e.phase, coalesce(t.layer_group, 0)
),
explained AS (
    SELECT run_id, phase, sum(share ORDER BY layer_group) AS share,
           1.96 * sqrt(sum(coalesce(square, 0) ORDER BY layer_group))
               / nullif(sum(share ORDER BY layer_group), 0) AS margin
    FROM shares GROUP BY run_id, phase
),
busy AS (
    SELECT run_id, phase, as_count(sum(busy_ns)) AS busy_ns FROM live_op_times GROUP BY run_id, phase
),
unknown AS (
    SELECT run_id, phase, sum(share_of_time ORDER BY op) AS share FROM live_unknown_ops GROUP BY run_id, phase
),
phases AS (SELECT run_id, phase FROM bare UNION SELECT run_id, phase FROM live_op_costs)
SELECT q.run_id, q.phase, b.steps, b.tokens, b.p50 AS bare_p50_ns, b.p5 AS bare_p5_ns, b.p95 AS bare_p95_ns,
       b.p99 AS bare_p99_ns, y.middle AS typical_log, y.variance AS typical_variance, y.n AS typical_iterations,
       t.p50 AS timed_p50_ns, p.overhead, p.pairs, p.reach.low AS overhead_low, p.reach.high AS overhead_high,
       e.share AS explained_share, e.margin AS explained_margin, k.busy_ns, u.share AS unknown_share,
       c.matmul_flops, c.causal_flops, c.needed_flops, c.needed_kv_bytes, c.other_flops, c.weight_bytes,
       c.activation_bytes, c.kv_read_bytes, c.kv_write_bytes, c.held_bytes, c.step_held_bytes, c.ops, c.unknown_ops,
       c.guessed, c.product_dtypes, c.work, c.activations
FROM phases q
LEFT JOIN bare b ON b.run_id = q.run_id AND b.phase = q.phase
LEFT JOIN live_work c ON c.run_id = q.run_id AND c.phase = q.phase AND c.path IS NULL
LEFT JOIN timed t ON t.run_id = q.run_id AND t.phase = q.phase
LEFT JOIN paired p ON p.run_id = q.run_id AND p.phase = q.phase
LEFT JOIN explained e ON e.run_id = q.run_id AND e.phase = q.phase
LEFT JOIN typical y ON y.run_id = q.run_id AND y.phase = q.phase
LEFT JOIN busy k ON k.run_id = q.run_id AND k.phase = q.phase
LEFT JOIN unknown u ON u.run_id = q.run_id AND u.phase = q.phase
