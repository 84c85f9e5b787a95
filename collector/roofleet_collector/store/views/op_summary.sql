-- One row a run, phase and operator: how often a step calls it, what it costs by the formulas, and its time from a pass of its own.
-- run_id: The run.
-- phase: `prefill`, `decode` or `forward`.
-- op: Name of the operator, such as `aten.linear`.
-- calls: Calls in a step that change or compute something, as timed where ops were timed, else as traced.
-- is_known: Whether all of them have a cost formula; NULL for one that was timed and not traced.
-- duration_ns: Host time inside them in a step, in ns.
-- busy_ns: Time the device's kernels ran for them in a step; NULL on a CPU, in ns.
-- kernels: Kernels they launched; NULL on a CPU.
-- share_of_time: Share of the kernels' time of all ops, or on a CPU of the time inside all ops.
-- matmul_flops: Matrix-product and attention work, dense; NULL without a formula, in FLOP.
-- other_flops: Elementwise, norm and softmax work, in FLOP.
-- bytes: Bytes moved: weights, activations and cache.
CREATE OR REPLACE VIEW op_summary AS
WITH traced AS (
    SELECT c.run_id, c.phase, o.op, as_count(sum(rounds_of(o.attributes)) FILTER (NOT o.is_view)) AS calls,
           bool_and(c.is_known) AS is_known,
           as_count(sum(c.matmul_flops)) AS matmul_flops, as_count(sum(c.other_flops)) AS other_flops,
           as_count(sum(c.weight_bytes) + sum(c.activation_bytes) + sum(c.kv_read_bytes) + sum(c.kv_write_bytes))
               AS bytes
    FROM op_costs c JOIN ops o USING (run_id, phase, op_index)
    GROUP BY c.run_id, c.phase, o.op
),
timed AS (
    SELECT run_id, phase, op, as_count(sum(calls)) AS calls, as_count(sum(duration_ns)) AS duration_ns,
           as_count(sum(busy_ns)) AS busy_ns, as_count(sum(kernels)) AS kernels
    FROM op_times GROUP BY run_id, phase, op
),
named AS (SELECT run_id, phase, op FROM traced UNION SELECT run_id, phase, op FROM timed),
joined AS (
    SELECT n.run_id, n.phase, n.op, coalesce(t.calls, c.calls) AS calls, c.is_known, t.duration_ns,
           t.busy_ns, t.kernels, c.matmul_flops, c.other_flops, c.bytes
    FROM named n
    LEFT JOIN traced c ON c.run_id = n.run_id AND c.phase = n.phase AND c.op = n.op
    LEFT JOIN timed t ON t.run_id = n.run_id AND t.phase = n.phase AND t.op = n.op
)
SELECT run_id, phase, op, calls, is_known, duration_ns, busy_ns, kernels,
       coalesce(busy_ns / nullif(sum(busy_ns) OVER step, 0),
                CASE WHEN sum(busy_ns) OVER step IS NULL
                     THEN duration_ns / nullif(sum(duration_ns) OVER step, 0) END) AS share_of_time,
       matmul_flops, other_flops, bytes
FROM joined
WHERE calls > 0
WINDOW step AS (PARTITION BY run_id, phase);
