-- One row a run, phase and layer. Flops, bytes and self_ns are the layer's own; total_ columns include the layers inside it. All figures are for one step.
-- run_id: The run.
-- phase: `prefill`, `decode` or `forward`.
-- path: The layer's path in the module tree; the empty string is the model itself.
-- module_type: Class of the module.
-- role: What the layer is for.
-- block_index: Number of the repeated block it belongs to; NULL outside them.
-- calls: How often a step calls the layer.
-- mean_ns: Mean time inside the layer in a step, the layers inside it included and the timer's cost taken off, in ns.
-- p50_ns: Median of the same, in ns.
-- p95_ns: 95th percentile of the same, in ns.
-- self_ns: Median time in a step less the layers inside it and the timer's cost, in ns.
-- share_of_phase: self_ns over the sum of self_ns of all layers of the phase.
-- matmul_flops: Matrix-product and attention work, dense, in FLOP.
-- other_flops: Elementwise, norm and softmax work, in FLOP.
-- weight_bytes: Weights read, in bytes.
-- activation_bytes: Activations read and written, in bytes.
-- kv_bytes: Key-value cache read and written, in bytes.
-- arithmetic_intensity: FLOP per byte moved.
-- achieved_flops_per_s: FLOP over self_ns.
-- achieved_bytes_per_s: Bytes over self_ns.
-- attainable_flops_per_s: Lower of the compute roof, by the dtypes of its ops, and intensity times the bandwidth roof, of memory or caches (see work_roofs).
-- roofline_fraction: Time at the roof over self_ns; 1 is at the roof.
-- bound: `compute` or `memory`, the side of the ridge; `overhead` where the layer reaches less than a quarter of the roof with ops that would take under 10 microseconds each there, or keeps the device's kernels busy less than half of its time; NULL where it has no ops of its own.
-- peak_memory_bytes: Most live cache and activation bytes while the layer ran, in bytes.
-- time_at_roof_ns: Time its own ops would take at the roof, in ns.
-- ops: Ops of its own that move or compute something.
-- unknown_ops: Ops of its own without a formula.
-- parent_path: The layer it sits in; NULL for the model itself.
-- layer_index: Its place in the order of the module tree.
-- depth: Steps from the model itself.
-- is_leaf: Whether it has no layers inside.
-- total_matmul_flops: matmul_flops with the layers inside, in FLOP.
-- total_other_flops: other_flops with the layers inside, in FLOP.
-- total_weight_bytes: weight_bytes with the layers inside, in bytes.
-- total_activation_bytes: activation_bytes with the layers inside, in bytes.
-- total_kv_bytes: kv_bytes with the layers inside, in bytes.
-- kv_read_bytes: Key-value cache read, in bytes.
-- kv_write_bytes: Key-value cache written, in bytes.
-- timer_ns: The timer's cost that is taken off self_ns, the median of a step, in ns.
-- busy_ns: Time the device's kernels run for its own ops in a step; NULL on a CPU, in ns.
-- fault: Why it lies above its roof, with both numbers: the roof, its work or its time is at fault; NULL where it does not. roofline_points also knows the doubts of the whole phase.
-- product_dtypes: JSON object of the dtypes that its products are computed in, each with its share of their FLOP.
-- needed_flops: What no implementation can do without of matmul_flops: of attention the pairs that the mask lets through, in FLOP.
-- compute_roof_flops_per_s: The compute roof of its work, by the dtypes of its ops, in FLOP/s.
-- memory_roof_bytes_per_s: The bandwidth roof of its traffic, the memory's or the caches', in bytes/s.
-- from_memory_bytes: Traffic that caches cannot serve, in bytes (see work_roofs).
-- guessed: Whether its bytes are an expectation: which experts rows meet, shapes do not say.
CREATE OR REPLACE VIEW layer_summary AS
WITH times AS (
    SELECT run_id, phase, path, median(calls) AS calls, avg(duration_ns) AS mean_ns,
           median(duration_ns) AS p50_ns, quantile_cont(duration_ns, 0.95) AS p95_ns,
           median(self_ns) AS self_ns, median(timer_ns) AS timer_ns
    FROM layer_steps GROUP BY run_id, phase, path
),
phases AS (
    SELECT run_id, phase, sum(self_ns) AS phase_self_ns
    FROM (SELECT run_id, phase, self_ns FROM times
          UNION ALL SELECT DISTINCT run_id, phase, NULL FROM op_costs)
    GROUP BY run_id, phase
),
busy AS (
    SELECT run_id, phase, path, sum(busy_ns)::BIGINT AS busy_ns FROM op_times GROUP BY run_id, phase, path
),
costs AS (
    SELECT *, kv_read_bytes + kv_write_bytes AS kv_bytes FROM work_roofs WHERE path IS NOT NULL
),
upward AS (
    SELECT run_id, phase, unnest(ancestors) AS path, matmul_flops, other_flops, weight_bytes,
           activation_bytes, kv_bytes
    FROM (SELECT *, CASE WHEN path = '' THEN ['']
                         ELSE list_concat([''], list_transform(range(1, len(string_split(path, '.')) + 1),
                              lambda i: array_to_string(string_split(path, '.')[1:i], '.'))) END AS ancestors
          FROM costs)
),
totals AS (
    SELECT run_id, phase, path, sum(matmul_flops)::BIGINT AS matmul_flops,
           sum(other_flops)::BIGINT AS other_flops, sum(weight_bytes)::BIGINT AS weight_bytes,
           sum(activation_bytes)::BIGINT AS activation_bytes, sum(kv_bytes)::BIGINT AS kv_bytes
    FROM upward GROUP BY run_id, phase, path
),
held AS (
    SELECT l.run_id, q.phase, l.path, l.parent_path, l.layer_index, l.depth, l.is_leaf, l.module_type,
           l.role, l.block_index, t.calls, t.mean_ns, t.p50_ns, t.p95_ns, t.self_ns, t.timer_ns,
           q.phase_self_ns, b.busy_ns, c.kv_read_bytes, c.kv_write_bytes,
           c.matmul_flops, c.other_flops, c.weight_bytes, c.activation_bytes, c.kv_bytes, c.ops,
           c.unknown_ops,
           s.matmul_flops AS total_matmul_flops, s.other_flops AS total_other_flops,
           s.weight_bytes AS total_weight_bytes, s.activation_bytes AS total_activation_bytes,
           s.kv_bytes AS total_kv_bytes,
           y.peak_bytes AS peak_memory_bytes,
           CASE WHEN c.ops > 0 THEN c.matmul_flops + c.other_flops END AS flops,
           nullif(c.weight_bytes + c.activation_bytes + c.kv_bytes, 0) AS bytes,
           c.compute_flops_per_s AS compute, c.memory_bytes_per_s AS memory, c.product_dtypes, c.guessed,
           c.needed_flops, c.from_memory_bytes
    FROM layers l
    JOIN phases q ON q.run_id = l.run_id
    LEFT JOIN times t ON t.run_id = l.run_id AND t.phase = q.phase AND t.path = l.path
    LEFT JOIN busy b ON b.run_id = l.run_id AND b.phase = q.phase AND b.path = l.path
    LEFT JOIN costs c ON c.run_id = l.run_id AND c.phase = q.phase AND c.path = l.path
    LEFT JOIN totals s ON s.run_id = l.run_id AND s.phase = q.phase AND s.path = l.path
    LEFT JOIN layer_memory y ON y.run_id = l.run_id AND y.phase = q.phase AND y.path = l.path
),
bounded AS (
    SELECT *, time_at_roof_ns(flops, bytes, compute, memory) AS time_at_roof_ns FROM held
)
SELECT run_id, phase, path, module_type, role, block_index, calls::BIGINT AS calls, mean_ns, p50_ns, p95_ns,
       self_ns, self_ns / nullif(phase_self_ns, 0) AS share_of_phase,
       matmul_flops, other_flops, weight_bytes, activation_bytes, kv_bytes,
       flops / bytes AS arithmetic_intensity,
       flops / nullif(self_ns, 0) * 1e9 AS achieved_flops_per_s,
       bytes / nullif(self_ns, 0) * 1e9 AS achieved_bytes_per_s,
       attainable_flops(flops, bytes, compute, memory) AS attainable_flops_per_s,
       time_at_roof_ns / nullif(self_ns, 0) AS roofline_fraction,
       bound_by(flops, bytes, compute, memory, nullif(self_ns, 0), ops, busy_ns := busy_ns) AS bound,
       peak_memory_bytes, time_at_roof_ns, ops, unknown_ops, parent_path, layer_index, depth, is_leaf,
       total_matmul_flops, total_other_flops, total_weight_bytes, total_activation_bytes, total_kv_bytes,
       kv_read_bytes, kv_write_bytes, timer_ns, busy_ns,
       roof_fault(flops, matmul_flops - needed_flops, bytes, compute, memory, nullif(self_ns, 0),
                  point_doubt(self_ns, unknown_ops, guessed)) AS fault, product_dtypes,
       needed_flops, compute AS compute_roof_flops_per_s, memory AS memory_roof_bytes_per_s, from_memory_bytes,
       guessed
FROM bounded;
