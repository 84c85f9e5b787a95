-- The layers of a run with the most time to save, a few of each phase.
SELECT phase, rank, path, module_type, role, self_ns, share_of_phase, bound, roofline_fraction, saving_ns
FROM bottlenecks
WHERE run_id = ? AND rank <= ?
ORDER BY phase DESC, rank
