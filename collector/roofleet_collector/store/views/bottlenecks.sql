-- The layers of each run and phase in the order of the time that reaching the roof would save.
-- run_id: The run.
-- phase: `prefill`, `decode` or `forward`.
-- rank: 1 is the layer with the most to save.
-- path: The layer.
-- module_type: Class of the module.
-- role: What the layer is for.
-- self_ns: Its own time in a step, in ns.
-- share_of_phase: Share of the phase's time.
-- bound: `compute`, `memory` or `overhead`.
-- roofline_fraction: Time at the roof over its time.
-- saving_ns: Its time less its time at the roof; never below 0, in ns.
CREATE OR REPLACE VIEW bottlenecks AS
SELECT run_id, phase,
       row_number() OVER (PARTITION BY run_id, phase
                          ORDER BY greatest(self_ns - coalesce(time_at_roof_ns, 0), 0) DESC, path) AS rank,
       path, module_type, role, self_ns, share_of_phase, bound, roofline_fraction,
       greatest(self_ns - coalesce(time_at_roof_ns, 0), 0) AS saving_ns
FROM layer_summary
WHERE self_ns IS NOT NULL;
