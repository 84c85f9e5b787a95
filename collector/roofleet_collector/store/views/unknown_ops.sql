-- The operators without a cost formula: their cost is in no figure, but how often they run and their share of the time are known.
-- run_id: The run.
-- phase: `prefill`, `decode` or `forward`.
-- op: Name of the operator.
-- calls: Calls in a step.
-- share_of_time: Share of the time of all ops of the phase; NULL where ops were not timed.
CREATE OR REPLACE VIEW unknown_ops AS
SELECT run_id, phase, op, calls, share_of_time FROM op_summary WHERE NOT is_known;
