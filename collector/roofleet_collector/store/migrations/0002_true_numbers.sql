-- Conditions, calibration, variants, quality and memory of a run; groups of layers; sweeps.

ALTER TABLE runs ADD COLUMN "outputs_finite" BOOLEAN;
ALTER TABLE runs ADD COLUMN "sweep_id" VARCHAR;
ALTER TABLE runs ADD COLUMN "variant_notes" VARCHAR;
ALTER TABLE runs ADD COLUMN "allocator_peak_bytes" BIGINT;
ALTER TABLE runs ADD COLUMN "allocator_reserved_bytes" BIGINT;
ALTER TABLE runs ADD COLUMN "affinity" VARCHAR;
ALTER TABLE runs ADD COLUMN "governor" VARCHAR;
ALTER TABLE runs ADD COLUMN "other_load" DOUBLE;
ALTER TABLE runs ADD COLUMN "clock_low_hz" DOUBLE;
ALTER TABLE runs ADD COLUMN "clock_high_hz" DOUBLE;
ALTER TABLE runs ADD COLUMN "throttled" BOOLEAN;
ALTER TABLE runs ADD COLUMN "timer_outside_ns" DOUBLE;
ALTER TABLE runs ADD COLUMN "timer_inside_ns" DOUBLE;
ALTER TABLE runs ADD COLUMN "perplexity" DOUBLE;
ALTER TABLE runs ADD COLUMN "baseline_perplexity" DOUBLE;
ALTER TABLE runs ADD COLUMN "kl_divergence" DOUBLE;
ALTER TABLE runs ADD COLUMN "top1_agreement" DOUBLE;
ALTER TABLE runs ADD COLUMN "quality_tokens" BIGINT;
ALTER TABLE runs ADD COLUMN "quality_baseline" VARCHAR;
ALTER TABLE runs ADD COLUMN "quality_unknown" VARCHAR;
ALTER TABLE ops ADD COLUMN "stated_cost" VARCHAR;
ALTER TABLE steps ADD COLUMN "layer_group" BIGINT;
ALTER TABLE spans ALTER COLUMN "self_ns" DROP NOT NULL;
ALTER TABLE spans ADD COLUMN "inner_calls" BIGINT;

CREATE TABLE phase_memory (
    "run_id" VARCHAR NOT NULL,
    "phase" VARCHAR NOT NULL,
    "weight_bytes" BIGINT NOT NULL,
    "kv_bytes" BIGINT NOT NULL,
    "activation_bytes" BIGINT NOT NULL,
    "peak_bytes" BIGINT NOT NULL,
    "peak_step_index" BIGINT,
    "peak_path" VARCHAR,
    "peak_op" VARCHAR,
    "workspace_bytes" BIGINT,
    "allocator_peak_bytes" BIGINT,
    "allocator_reserved_bytes" BIGINT
);

CREATE TABLE op_times (
    "run_id" VARCHAR NOT NULL,
    "phase" VARCHAR NOT NULL,
    "path" VARCHAR NOT NULL,
    "op" VARCHAR NOT NULL,
    "calls" BIGINT NOT NULL,
    "duration_ns" BIGINT NOT NULL,
    "busy_ns" BIGINT,
    "kernels" BIGINT
);

CREATE TABLE sweeps (
    "sweep_id" VARCHAR NOT NULL,
    "model_name" VARCHAR NOT NULL,
    "axes" VARCHAR NOT NULL,
    "points" BIGINT NOT NULL,
    "started_at" TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (sweep_id)
);
