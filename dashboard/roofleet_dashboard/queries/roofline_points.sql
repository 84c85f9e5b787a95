-- The points of one run and phase at a level, and the whole model's beside them.
SELECT run_id, phase, level, name, role, flops, bytes, time_ns, arithmetic_intensity, achieved_flops_per_s,
       attainable_flops_per_s, roofline_fraction, bound, share_of_phase, fault, product_dtypes
FROM roofline_points
WHERE run_id = ? AND phase = ? AND level IN (?, 'model')
ORDER BY level = 'model', time_ns DESC, name
