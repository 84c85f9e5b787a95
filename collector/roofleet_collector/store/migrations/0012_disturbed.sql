-- What else was at work where a run was measured.

ALTER TABLE runs ADD COLUMN "disturbed_by" VARCHAR;
