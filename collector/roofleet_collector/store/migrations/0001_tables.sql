-- The tables of version 0.1 and the log that makes every batch count once.

CREATE TABLE hosts (
    "host_id" VARCHAR NOT NULL,
    "hostname" VARCHAR NOT NULL,
    "os" VARCHAR,
    "architecture" VARCHAR,
    "cpu_name" VARCHAR,
    "cpu_cores" BIGINT,
    "cpu_threads" BIGINT,
    "memory_bytes" BIGINT,
    "python_version" VARCHAR,
    "agent_version" VARCHAR,
    "agent_id" VARCHAR,
    "last_seen_at" TIMESTAMPTZ,
    PRIMARY KEY (host_id)
);

CREATE TABLE devices (
    "device_id" VARCHAR NOT NULL,
    "host_id" VARCHAR NOT NULL,
    "kind" VARCHAR NOT NULL,
    "name" VARCHAR NOT NULL,
    "backend" VARCHAR NOT NULL,
    "device_index" BIGINT NOT NULL,
    "memory_bytes" BIGINT,
    "driver_version" VARCHAR,
    "hardware_name" VARCHAR,
    "unavailable" VARCHAR,
    PRIMARY KEY (device_id)
);

CREATE TABLE roofs (
    "roof_id" VARCHAR NOT NULL,
    "device_id" VARCHAR NOT NULL,
    "kind" VARCHAR NOT NULL,
    "dtype" VARCHAR,
    "accumulate_dtype" VARCHAR,
    "memory_level" VARCHAR,
    "flops_per_s" DOUBLE,
    "bytes_per_s" DOUBLE,
    "source_kind" VARCHAR NOT NULL,
    "source" VARCHAR NOT NULL,
    "measured_at" TIMESTAMPTZ,
    PRIMARY KEY (roof_id)
);

CREATE TABLE models (
    "model_id" VARCHAR NOT NULL,
    "name" VARCHAR NOT NULL,
    "origin" VARCHAR NOT NULL,
    "architecture" VARCHAR NOT NULL,
    "task" VARCHAR NOT NULL,
    "parameters" BIGINT NOT NULL,
    "config" VARCHAR,
    "source" VARCHAR,
    PRIMARY KEY (model_id)
);

CREATE TABLE runs (
    "run_id" VARCHAR NOT NULL,
    "host_id" VARCHAR NOT NULL,
    "device_id" VARCHAR NOT NULL,
    "model_id" VARCHAR NOT NULL,
    "job_id" VARCHAR,
    "status" VARCHAR NOT NULL,
    "error" VARCHAR,
    "started_at" TIMESTAMPTZ NOT NULL,
    "finished_at" TIMESTAMPTZ,
    "dtype" VARCHAR NOT NULL,
    "variant" VARCHAR NOT NULL,
    "weights" VARCHAR NOT NULL,
    "attention" VARCHAR,
    "engine" VARCHAR NOT NULL,
    "batch_size" BIGINT NOT NULL,
    "prompt_tokens" BIGINT NOT NULL,
    "new_tokens" BIGINT NOT NULL,
    "logits" VARCHAR NOT NULL,
    "iterations" BIGINT NOT NULL,
    "warmup" BIGINT NOT NULL,
    "decode_cache_tokens" BIGINT,
    "prompt_sha256" VARCHAR,
    "parameter_bytes" BIGINT,
    "kv_bytes_per_token" BIGINT,
    "peak_memory_bytes" BIGINT,
    "peak_memory_source" VARCHAR,
    "process_peak_bytes" BIGINT,
    "energy_j" DOUBLE,
    "threads" BIGINT,
    "torch_version" VARCHAR,
    "transformers_version" VARCHAR,
    PRIMARY KEY (run_id)
);

CREATE TABLE layers (
    "run_id" VARCHAR NOT NULL,
    "path" VARCHAR NOT NULL,
    "parent_path" VARCHAR,
    "layer_index" BIGINT NOT NULL,
    "depth" BIGINT NOT NULL,
    "module_type" VARCHAR NOT NULL,
    "role" VARCHAR NOT NULL,
    "block_index" BIGINT,
    "is_leaf" BOOLEAN NOT NULL,
    "parameters" BIGINT NOT NULL,
    "parameter_bytes" BIGINT NOT NULL
);

CREATE TABLE layer_edges (
    "run_id" VARCHAR NOT NULL,
    "phase" VARCHAR NOT NULL,
    "source_path" VARCHAR NOT NULL,
    "target_path" VARCHAR NOT NULL,
    "tensors" BIGINT NOT NULL,
    "bytes" BIGINT NOT NULL
);

CREATE TABLE ops (
    "run_id" VARCHAR NOT NULL,
    "phase" VARCHAR NOT NULL,
    "op_index" BIGINT NOT NULL,
    "path" VARCHAR NOT NULL,
    "op" VARCHAR NOT NULL,
    "inputs" STRUCT(shape BIGINT[], dtype VARCHAR, role VARCHAR, bytes BIGINT)[] NOT NULL,
    "outputs" STRUCT(shape BIGINT[], dtype VARCHAR, role VARCHAR, bytes BIGINT)[] NOT NULL,
    "is_view" BOOLEAN NOT NULL,
    "attributes" VARCHAR
);

CREATE TABLE op_costs (
    "run_id" VARCHAR NOT NULL,
    "phase" VARCHAR NOT NULL,
    "op_index" BIGINT NOT NULL,
    "path" VARCHAR NOT NULL,
    "is_known" BOOLEAN NOT NULL,
    "matmul_flops" BIGINT,
    "causal_flops" BIGINT,
    "other_flops" BIGINT,
    "weight_bytes" BIGINT,
    "activation_bytes" BIGINT,
    "kv_read_bytes" BIGINT,
    "kv_write_bytes" BIGINT,
    "formula_version" BIGINT NOT NULL
);

CREATE TABLE steps (
    "run_id" VARCHAR NOT NULL,
    "phase" VARCHAR NOT NULL,
    "pass" VARCHAR NOT NULL,
    "iteration" BIGINT NOT NULL,
    "step_index" BIGINT NOT NULL,
    "is_warmup" BOOLEAN NOT NULL,
    "start_ns" BIGINT NOT NULL,
    "duration_ns" BIGINT NOT NULL,
    "tokens" BIGINT NOT NULL,
    "cache_tokens" BIGINT NOT NULL
);

CREATE TABLE spans (
    "run_id" VARCHAR NOT NULL,
    "phase" VARCHAR NOT NULL,
    "iteration" BIGINT NOT NULL,
    "step_index" BIGINT NOT NULL,
    "path" VARCHAR NOT NULL,
    "start_ns" BIGINT NOT NULL,
    "duration_ns" BIGINT NOT NULL,
    "self_ns" BIGINT NOT NULL
);

CREATE TABLE layer_memory (
    "run_id" VARCHAR NOT NULL,
    "phase" VARCHAR NOT NULL,
    "path" VARCHAR NOT NULL,
    "enter_bytes" BIGINT NOT NULL,
    "exit_bytes" BIGINT NOT NULL,
    "peak_bytes" BIGINT NOT NULL,
    "allocated_bytes" BIGINT NOT NULL
);

CREATE TABLE readings (
    "device_id" VARCHAR NOT NULL,
    "read_at" TIMESTAMPTZ NOT NULL,
    "utilization" DOUBLE,
    "memory_used_bytes" BIGINT,
    "power_w" DOUBLE,
    "clock_hz" DOUBLE,
    "temperature_c" DOUBLE
);

CREATE TABLE outputs (
    "run_id" VARCHAR NOT NULL,
    "sequence_index" BIGINT NOT NULL,
    "token_ids" BIGINT[] NOT NULL,
    "text" VARCHAR
);

CREATE TABLE jobs (
    "job_id" VARCHAR NOT NULL,
    "host_id" VARCHAR,
    "run_id" VARCHAR,
    "request" VARCHAR NOT NULL,
    "status" VARCHAR NOT NULL,
    "error" VARCHAR,
    "submitted_at" TIMESTAMPTZ NOT NULL,
    "finished_at" TIMESTAMPTZ,
    PRIMARY KEY (job_id)
);

CREATE TABLE ingest_log (
    agent_id VARCHAR NOT NULL,
    epoch BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    stored_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (agent_id, epoch, sequence)
);
