-- What views need of a run, kept when it has ended; runs of which that is still to be worked out.

CREATE TABLE run_figures (
    "run_id" VARCHAR NOT NULL,
    "formula_version" BIGINT NOT NULL,
    "iterations" BIGINT,
    "iteration_ns" DOUBLE,
    "growth_per_cached_token" DOUBLE
);

CREATE TABLE phase_figures (
    "run_id" VARCHAR NOT NULL,
    "phase" VARCHAR NOT NULL,
    "steps" BIGINT,
    "tokens" BIGINT,
    "bare_p50_ns" DOUBLE,
    "bare_p5_ns" DOUBLE,
    "bare_p95_ns" DOUBLE,
    "bare_p99_ns" DOUBLE,
    "typical_log" DOUBLE,
    "typical_variance" DOUBLE,
    "typical_iterations" BIGINT,
    "timed_p50_ns" DOUBLE,
    "overhead" DOUBLE,
    "pairs" BIGINT,
    "overhead_low" DOUBLE,
    "overhead_high" DOUBLE,
    "explained_share" DOUBLE,
    "explained_margin" DOUBLE,
    "busy_ns" BIGINT,
    "unknown_share" DOUBLE,
    "matmul_flops" BIGINT,
    "causal_flops" BIGINT,
    "needed_flops" BIGINT,
    "needed_kv_bytes" BIGINT,
    "other_flops" BIGINT,
    "weight_bytes" BIGINT,
    "activation_bytes" BIGINT,
    "kv_read_bytes" BIGINT,
    "kv_write_bytes" BIGINT,
    "held_bytes" BIGINT,
    "step_held_bytes" BIGINT,
    "ops" BIGINT,
    "unknown_ops" BIGINT,
    "guessed" BOOLEAN,
    "product_dtypes" VARCHAR,
    "work" STRUCT(dtype VARCHAR, matmul_flops BIGINT, other_flops BIGINT)[],
    "activations" STRUCT(each_bytes DOUBLE, bytes BIGINT)[]
);

CREATE TABLE layer_figures (
    "run_id" VARCHAR NOT NULL,
    "phase" VARCHAR NOT NULL,
    "path" VARCHAR NOT NULL,
    "parent_path" VARCHAR,
    "layer_index" BIGINT,
    "depth" BIGINT,
    "is_leaf" BOOLEAN,
    "module_type" VARCHAR,
    "role" VARCHAR,
    "block_index" BIGINT,
    "calls" BIGINT,
    "mean_ns" DOUBLE,
    "p50_ns" DOUBLE,
    "p95_ns" DOUBLE,
    "self_ns" DOUBLE,
    "timer_ns" DOUBLE,
    "share_of_phase" DOUBLE,
    "busy_ns" BIGINT,
    "typical_log" DOUBLE,
    "typical_variance" DOUBLE,
    "typical_iterations" BIGINT,
    "peak_memory_bytes" BIGINT,
    "matmul_flops" BIGINT,
    "causal_flops" BIGINT,
    "needed_flops" BIGINT,
    "needed_kv_bytes" BIGINT,
    "other_flops" BIGINT,
    "weight_bytes" BIGINT,
    "activation_bytes" BIGINT,
    "kv_read_bytes" BIGINT,
    "kv_write_bytes" BIGINT,
    "held_bytes" BIGINT,
    "step_held_bytes" BIGINT,
    "ops" BIGINT,
    "unknown_ops" BIGINT,
    "guessed" BOOLEAN,
    "product_dtypes" VARCHAR,
    "work" STRUCT(dtype VARCHAR, matmul_flops BIGINT, other_flops BIGINT)[],
    "activations" STRUCT(each_bytes DOUBLE, bytes BIGINT)[],
    "total_matmul_flops" BIGINT,
    "total_other_flops" BIGINT,
    "total_weight_bytes" BIGINT,
    "total_activation_bytes" BIGINT,
    "total_kv_bytes" BIGINT
);

CREATE TABLE turn_figures (
    "baseline_run_id" VARCHAR NOT NULL,
    "run_id" VARCHAR NOT NULL,
    "phase" VARCHAR NOT NULL,
    "path" VARCHAR,
    "ratio" DOUBLE,
    "low" DOUBLE,
    "high" DOUBLE
);

CREATE TABLE roofs_in_force (
    "device_id" VARCHAR NOT NULL,
    "threads" BIGINT,
    "torch_version" VARCHAR,
    "driver_version" VARCHAR,
    "compute" STRUCT(dtype VARCHAR, flops_per_s DOUBLE, source_kind VARCHAR, source VARCHAR)[],
    "memory_bytes_per_s" DOUBLE,
    "memory_source_kind" VARCHAR,
    "memory_source" VARCHAR,
    "memory_size_bytes" BIGINT,
    "cache_bytes_per_s" DOUBLE,
    "cache_source" VARCHAR
);

CREATE TABLE unsettled (
    run_id VARCHAR NOT NULL
);

INSERT INTO unsettled SELECT run_id FROM runs;
