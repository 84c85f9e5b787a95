-- One row a run and phase: how long a step takes, what it costs, and which roof it is under.
-- run_id: The run.
-- phase: `prefill`, `decode` or `forward`.
-- steps: Measured bare steps, over all iterations, warm-up left out.
-- tokens_per_step: Tokens a step processes, over the whole batch; NULL for inputs that are no tokens.
-- bare_p50_ns: Median wall time of a step with nothing attached, in ns. This is the latency.
-- bare_p5_ns: 5th percentile of the same, in ns.
-- bare_p95_ns: 95th percentile of the same, in ns.
-- timed_p50_ns: Median wall time of a step with layer timing on, in ns.
-- instrumentation_overhead: Timed over bare, the median over timed steps and the bare ones right before and after them; 1 is none; NULL where its interval is wider than 5 % either way.
-- layer_time_coverage: Own times of all layers below the model itself over the bare step: the mean share of the timed step, summed over the groups of layers timed together, times the overhead; NULL where its interval is wider than 5 % either way.
-- matmul_flops: Matrix-product and attention work of a step, dense, in FLOP.
-- causal_flops: The same with the masked half of causal attention left out, in FLOP.
-- other_flops: Elementwise, norm and softmax work of a step, in FLOP.
-- weight_bytes: Weights a step reads, in bytes.
-- activation_bytes: Activations a step reads and writes, in bytes.
-- kv_bytes: Key-value cache a step reads and writes, in bytes.
-- ops: Ops of a step that move or compute something.
-- unknown_ops: Ops of a step for which there is no formula; their cost is in none of the sums.
-- arithmetic_intensity: FLOP per byte moved.
-- achieved_flops_per_s: FLOP of a step over its median bare time.
-- achieved_bytes_per_s: Bytes of a step over its median bare time.
-- attainable_flops_per_s: Lower of compute_roof_flops_per_s and intensity times memory_roof_bytes_per_s.
-- time_at_roof_ns: Time a step would take at the roof, in ns.
-- roofline_fraction: Time at the roof over the median bare time; 1 is at the roof.
-- bound: `compute` or `memory`, the side of the ridge; `overhead` where the step reaches less than a quarter of the roof with ops that would take under 10 microseconds each there, or the device's kernels run less than half of it.
-- model_flops_utilization: Time the matrix work would take at the roofs of its ops' own dtypes over the median bare time (MFU).
-- memory_bandwidth_utilization: Time the traffic would take at the bandwidth roofs over the median bare time (MBU).
-- roof_source_kind: Where the roofs come from: `measured` here, in a measurement or in a run, `datasheet` or `mixed`.
-- bare_p99_ns: 99th percentile of the wall time of a bare step, in ns.
-- bare_typical_ns: The typical bare step: the geometric mean of the iterations' medians, in ns. Runs are compared by it.
-- bare_low_ns: Lower end of its 95 % confidence interval (Student's t over iterations, on logarithms); NULL with fewer than 3 iterations, in ns.
-- bare_high_ns: Upper end of the same, in ns.
-- noise: Why the time is too uncertain to rely on, with the figures: a wide interval, other work, throttling, clocks that moved; NULL when it was quiet.
-- busy_ns: Time the device's kernels run in a step; NULL on a CPU, in ns.
-- kv_read_bytes: Key-value cache a step reads, in bytes.
-- kv_write_bytes: Key-value cache a step writes, in bytes.
-- pairs: Timed steps with a bare one right before or after them.
-- overhead_low: Lower end of the 95 % interval of instrumentation_overhead, by the ranks of the pairs' ratios.
-- overhead_high: Upper end of the same.
-- coverage_low: Lower end of the 95 % interval of layer_time_coverage.
-- coverage_high: Upper end of the same.
-- pairs_unknown: Why overhead and coverage are NULL: too few pairs, or pairs that differ too much.
-- needed_flops: Matrix work of a step that no implementation can do without: pairs of attention that the mask lets through, and nothing that could have been kept, in FLOP. Where a mask is not known it counts least.
-- needed_kv_bytes: Key-value cache that no implementation can leave untouched: read the positions from before the step that are in sight, written the new ones that later steps can see, in bytes.
-- fault: Why the step lies above its roof, with both numbers: the roof, its work or its time is at fault; NULL where it does not.
-- product_dtypes: JSON object of the dtypes that products are computed in, each with its share of their FLOP; several where a run is mixed, as under autocast.
-- unknown_share: Share of the time of all ops that those without a formula take; NULL where ops were not timed.
-- utilization_is_least: Whether MFU, MBU and the rest are only lower bounds: ops without a formula take 5 % of the time or more, or nobody knows how much.
-- compute_roof_flops_per_s: The compute roof of its work, by the dtypes of its ops, in FLOP/s.
-- memory_roof_bytes_per_s: The bandwidth roof of its traffic: the memory's for what must come from there, and the caches' for all of it, in bytes/s.
-- from_memory_bytes: Traffic that caches cannot serve, in bytes (see work_roofs).
-- guessed: Whether bytes are an expectation: which experts rows meet, shapes do not say.
CREATE OR REPLACE VIEW phase_summary AS
WITH bare AS (
    SELECT run_id, phase, count(*) AS steps, median(duration_ns) AS p50,
           quantile_cont(duration_ns, 0.05) AS p5, quantile_cont(duration_ns, 0.95) AS p95,
           quantile_cont(duration_ns, 0.99) AS p99,
           any_value(tokens) AS tokens
    FROM steps WHERE pass = 'bare' AND NOT is_warmup GROUP BY run_id, phase
),
typical AS (
    SELECT run_id, phase, avg(ln(bare_ns) ORDER BY iteration) AS middle,
           mean_margin(var_samp(ln(bare_ns) ORDER BY iteration), count(*)) AS margin
    FROM phase_iterations GROUP BY run_id, phase
),
timed AS (
    SELECT run_id, phase, median(duration_ns) AS p50
    FROM steps WHERE pass = 'timed' AND NOT is_warmup GROUP BY run_id, phase
),
-- a timed step and the bare ones right before and after it in the steps' own order; where bare steps have
-- iterations or calls of their own, the one of the same number
pairs AS (
    SELECT t.run_id, t.phase, t.iteration, t.step_index, t.duration_ns / b.duration_ns AS ratio
    FROM steps t
    JOIN steps b ON b.run_id = t.run_id AND b.phase = t.phase AND b.iteration = t.iteration
                AND b.step_index BETWEEN t.step_index - 1 AND t.step_index + 1
    WHERE b.pass = 'bare' AND t.pass = 'timed' AND NOT b.is_warmup AND NOT t.is_warmup
    QUALIFY abs(b.step_index - t.step_index) = min(abs(b.step_index - t.step_index))
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
          FROM spans s LEFT JOIN runs r ON r.run_id = s.run_id
          WHERE s.path <> '' GROUP BY s.run_id, s.phase, s.iteration, s.step_index) e
    JOIN steps t USING (run_id, phase, iteration, step_index)
    WHERE t.pass = 'timed' AND NOT t.is_warmup
    GROUP BY e.run_id, e.phase, coalesce(t.layer_group, 0)
),
explained AS (
    SELECT run_id, phase, sum(share ORDER BY layer_group) AS share,
           1.96 * sqrt(sum(coalesce(square, 0) ORDER BY layer_group)) / sum(share ORDER BY layer_group) AS margin
    FROM shares GROUP BY run_id, phase
),
busy AS (
    SELECT run_id, phase, sum(busy_ns)::BIGINT AS busy_ns FROM op_times GROUP BY run_id, phase
),
unknown AS (
    SELECT run_id, phase, sum(share_of_time ORDER BY op) AS share FROM unknown_ops GROUP BY run_id, phase
),
costs AS (SELECT * FROM work_roofs WHERE path IS NULL),
phases AS (SELECT run_id, phase FROM bare UNION SELECT run_id, phase FROM op_costs),
joined AS (
    SELECT q.run_id, q.phase, b.steps, b.tokens, b.p50, b.p5, b.p95, b.p99, t.p50 AS timed_p50, p.overhead, p.pairs, p.reach,
           ln(p.reach.high / p.reach.low) / 2 AS pair_margin, e.share, e.margin AS share_margin,
           y.middle, y.margin, k.busy_ns,
           c.matmul_flops, c.causal_flops, c.other_flops, c.weight_bytes, c.activation_bytes,
           c.kv_read_bytes, c.kv_write_bytes, c.kv_read_bytes + c.kv_write_bytes AS kv_bytes,
           c.needed_flops, c.needed_kv_bytes,
           c.ops, c.unknown_ops, c.product_dtypes, c.product_ns, c.memory_ns, c.guessed,
           c.compute_flops_per_s AS compute, c.memory_bytes_per_s AS memory, u.share AS unknown_share,
           c.from_memory_bytes,
           c.matmul_flops + c.other_flops AS flops,
           c.weight_bytes + c.activation_bytes + c.kv_read_bytes + c.kv_write_bytes AS bytes
    FROM phases q
    LEFT JOIN bare b ON b.run_id = q.run_id AND b.phase = q.phase
    LEFT JOIN costs c ON c.run_id = q.run_id AND c.phase = q.phase
    LEFT JOIN timed t ON t.run_id = q.run_id AND t.phase = q.phase
    LEFT JOIN paired p ON p.run_id = q.run_id AND p.phase = q.phase
    LEFT JOIN explained e ON e.run_id = q.run_id AND e.phase = q.phase
    LEFT JOIN typical y ON y.run_id = q.run_id AND y.phase = q.phase
    LEFT JOIN busy k ON k.run_id = q.run_id AND k.phase = q.phase
    LEFT JOIN unknown u ON u.run_id = q.run_id AND u.phase = q.phase
),
judged AS (
    SELECT *, share * overhead AS coverage, sqrt(pair_margin ** 2 + share_margin ** 2) AS coverage_margin,
           unknown_pairs(steps, pairs, greatest(pair_margin, sqrt(pair_margin ** 2 + coalesce(share_margin, 0) ** 2)))
               AS pairs_unknown
    FROM joined
),
held AS (
    SELECT j.*, r.batch_size, exp(j.middle) AS typical,
           exp(j.middle - j.margin) AS low, exp(j.middle + j.margin) AS high,
           CASE WHEN j.steps > 0
                THEN conditions_noise(r.other_load, r.throttled, r.clock_low_hz, r.clock_high_hz) END AS conditions,
           CASE WHEN j.phase = 'decode' THEN 1 ELSE r.prompt_tokens END AS phase_tokens,
           CASE WHEN 'datasheet' NOT IN (f.compute_source_kind, f.memory_source_kind) THEN 'measured'
                WHEN f.compute_source_kind = f.memory_source_kind THEN f.compute_source_kind
                WHEN f.compute_source_kind IS NULL OR f.memory_source_kind IS NULL
                THEN coalesce(f.compute_source_kind, f.memory_source_kind)
                ELSE 'mixed' END AS roof_source_kind,
           time_at_roof_ns(j.flops, j.bytes, j.compute, j.memory) AS time_at_roof_ns
    FROM judged j JOIN runs r ON r.run_id = j.run_id LEFT JOIN run_roofs f ON f.run_id = j.run_id
)
SELECT run_id, phase, steps, nullif(coalesce(tokens, phase_tokens) * batch_size, 0) AS tokens_per_step,
       p50 AS bare_p50_ns, p5 AS bare_p5_ns, p95 AS bare_p95_ns, timed_p50 AS timed_p50_ns,
       CASE WHEN pairs_unknown IS NULL THEN overhead END AS instrumentation_overhead,
       CASE WHEN pairs_unknown IS NULL THEN coverage END AS layer_time_coverage,
       matmul_flops, causal_flops, other_flops, weight_bytes, activation_bytes, kv_bytes, ops, unknown_ops,
       flops / nullif(bytes, 0) AS arithmetic_intensity,
       flops / p50 * 1e9 AS achieved_flops_per_s,
       bytes / p50 * 1e9 AS achieved_bytes_per_s,
       attainable_flops(flops, bytes, compute, memory) AS attainable_flops_per_s,
       time_at_roof_ns,
       time_at_roof_ns / p50 AS roofline_fraction,
       bound_by(flops, bytes, compute, memory, p50, ops, busy_ns := busy_ns) AS bound,
       product_ns / p50 AS model_flops_utilization,
       memory_ns / p50 AS memory_bandwidth_utilization,
       roof_source_kind, p99 AS bare_p99_ns, typical AS bare_typical_ns, low AS bare_low_ns, high AS bare_high_ns,
       nullif(concat_ws('; ', interval_noise(low, high), conditions), '') AS noise,
       busy_ns, kv_read_bytes, kv_write_bytes, pairs,
       CASE WHEN pairs_unknown IS NULL THEN reach.low END AS overhead_low,
       CASE WHEN pairs_unknown IS NULL THEN reach.high END AS overhead_high,
       CASE WHEN pairs_unknown IS NULL THEN coverage * exp(-coverage_margin) END AS coverage_low,
       CASE WHEN pairs_unknown IS NULL THEN coverage * exp(coverage_margin) END AS coverage_high,
       pairs_unknown,
       needed_flops, needed_kv_bytes,
       roof_fault(flops, matmul_flops - needed_flops, bytes, compute, memory, p50, nullif(concat_ws('; ',
           point_doubt(p50, unknown_ops, guessed),
           phase_doubt(nullif(concat_ws('; ', interval_noise(low, high), conditions), ''), low, 1.0)), ''))
           AS fault,
       product_dtypes, unknown_share,
       unknown_ops > 0 AND coalesce(unknown_share, 1) >= 0.05 AS utilization_is_least,
       compute AS compute_roof_flops_per_s, memory AS memory_roof_bytes_per_s,
       from_memory_bytes, guessed
FROM held;
