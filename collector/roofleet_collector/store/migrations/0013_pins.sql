-- Which runs are pinned: those outlive retention. Apart from run_labels, which agents send.

CREATE TABLE pinned_runs (
    "run_id" VARCHAR NOT NULL,
    "pinned_at" TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (run_id)
);
