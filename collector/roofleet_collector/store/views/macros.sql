-- Roofline arithmetic as functions, so that views and users' own queries apply one rule. Anything unknown
-- makes the answer NULL (DuckDB's greatest and least would pass over a NULL).

-- Time in ns that work of so many FLOP and bytes takes at the roofs.
CREATE OR REPLACE MACRO time_at_roof_ns(flops, bytes, compute_roof, memory_roof) AS
    CASE WHEN flops / compute_roof > bytes / memory_roof THEN flops / compute_roof * 1e9
         WHEN flops / compute_roof <= bytes / memory_roof THEN bytes / memory_roof * 1e9 END;

-- FLOP/s that the roofs allow at this intensity.
CREATE OR REPLACE MACRO attainable_flops(flops, bytes, compute_roof, memory_roof) AS
    flops / nullif(time_at_roof_ns(flops, bytes, compute_roof, memory_roof), 0) * 1e9;

-- `overhead` below a quarter of the roof with ops that would take under 10 microseconds each there (about
-- what launching or dispatching one takes); else the side of the ridge.
CREATE OR REPLACE MACRO bound_by(flops, bytes, compute_roof, memory_roof, time_ns, ops) AS
    CASE WHEN bytes = 0 OR ops = 0 THEN NULL
         WHEN time_at_roof_ns(flops, bytes, compute_roof, memory_roof) / time_ns < 0.25
              AND time_at_roof_ns(flops, bytes, compute_roof, memory_roof) / ops < 10000 THEN 'overhead'
         WHEN time_ns IS NULL THEN NULL
         WHEN flops / compute_roof > bytes / memory_roof THEN 'compute'
         WHEN flops / compute_roof <= bytes / memory_roof THEN 'memory' END;
