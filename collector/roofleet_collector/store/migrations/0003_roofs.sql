-- Roofs as observations kept with their conditions, and what decides the roof of a run and of an op.

ALTER TABLE roofs ADD COLUMN "size_bytes" BIGINT;
ALTER TABLE roofs ADD COLUMN "threads" BIGINT;
ALTER TABLE roofs ADD COLUMN "torch_version" VARCHAR;
ALTER TABLE roofs ADD COLUMN "driver_version" VARCHAR;
ALTER TABLE roofs ADD COLUMN "other_load" DOUBLE;
ALTER TABLE roofs ADD COLUMN "spread" DOUBLE;
ALTER TABLE roofs ADD COLUMN "run_id" VARCHAR;
ALTER TABLE runs ADD COLUMN "driver_version" VARCHAR;
ALTER TABLE op_costs ADD COLUMN "dtype" VARCHAR;

-- Until now the threads were told in words only.
UPDATE roofs SET threads = TRY_CAST(regexp_extract(source, ', (\d+) threads', 1) AS BIGINT)
WHERE source_kind = 'measured';
