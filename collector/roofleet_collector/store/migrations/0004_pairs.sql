-- Bare and timed steps in turns: what ended the iterations, energy by itself, and runs that took turns.

ALTER TABLE runs ADD COLUMN "iterations_ended_by" VARCHAR;
ALTER TABLE runs ADD COLUMN "energy_iterations" BIGINT;
ALTER TABLE runs ADD COLUMN "turns_id" VARCHAR;
