-- Pairs of bare and timed steps, and how an iteration count was settled.

SELECT 1;
