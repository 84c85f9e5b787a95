-- What is kept of readings and spans in their place, since when figures stand, and what retention did.

CREATE TABLE rolled_readings (
    "device_id" VARCHAR NOT NULL,
    "width_s" BIGINT NOT NULL,
    "began_at" TIMESTAMPTZ NOT NULL,
    "readings" BIGINT NOT NULL,
    "utilization_count" BIGINT NOT NULL,
    "mean_utilization" DOUBLE,
    "min_utilization" DOUBLE,
    "max_utilization" DOUBLE,
    "memory_used_bytes_count" BIGINT NOT NULL,
    "mean_memory_used_bytes" DOUBLE,
    "min_memory_used_bytes" BIGINT,
    "max_memory_used_bytes" BIGINT,
    "power_w_count" BIGINT NOT NULL,
    "mean_power_w" DOUBLE,
    "min_power_w" DOUBLE,
    "max_power_w" DOUBLE,
    "clock_hz_count" BIGINT NOT NULL,
    "mean_clock_hz" DOUBLE,
    "min_clock_hz" DOUBLE,
    "max_clock_hz" DOUBLE,
    "temperature_c_count" BIGINT NOT NULL,
    "mean_temperature_c" DOUBLE,
    "min_temperature_c" DOUBLE,
    "max_temperature_c" DOUBLE
);

CREATE TABLE kept_layer_iterations (
    "run_id" VARCHAR NOT NULL,
    "phase" VARCHAR NOT NULL,
    "path" VARCHAR NOT NULL,
    "iteration" BIGINT NOT NULL,
    "steps" BIGINT NOT NULL,
    "self_ns" DOUBLE,
    "start_ns" BIGINT NOT NULL
);

ALTER TABLE run_figures ADD COLUMN "settled_at" TIMESTAMPTZ;
ALTER TABLE run_figures ADD COLUMN "spans_let_go_at" TIMESTAMPTZ;

CREATE TABLE retention (
    "table_name" VARCHAR NOT NULL,
    "what" VARCHAR NOT NULL,
    "rows" BIGINT NOT NULL,
    "first_at" TIMESTAMPTZ NOT NULL,
    "last_at" TIMESTAMPTZ NOT NULL
);
