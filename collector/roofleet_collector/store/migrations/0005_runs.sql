-- Names, tags and notes of runs, and what else is said of them.

ALTER TABLE runs ADD COLUMN "parameters" BIGINT;

CREATE TABLE run_labels (
    "run_id" VARCHAR NOT NULL,
    "name" VARCHAR,
    "tags" VARCHAR[],
    "note" VARCHAR,
    PRIMARY KEY (run_id)
);

-- What was deleted stays deleted: rows of these runs that come later are taken and left out.
CREATE TABLE deleted_runs (
    run_id VARCHAR PRIMARY KEY,
    deleted_at TIMESTAMPTZ NOT NULL
);

ALTER TABLE op_costs ADD COLUMN "needed_flops" BIGINT;
ALTER TABLE op_costs ADD COLUMN "needed_kv_bytes" BIGINT;
