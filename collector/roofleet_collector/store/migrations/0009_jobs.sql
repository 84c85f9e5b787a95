-- Jobs with leases: to whom they were handed, under which token, and how far they are.

ALTER TABLE jobs ADD COLUMN "submission_id" VARCHAR;
ALTER TABLE jobs ADD COLUMN "selector" VARCHAR;
ALTER TABLE jobs ADD COLUMN "model_name" VARCHAR;
ALTER TABLE jobs ADD COLUMN "sweep_id" VARCHAR;
ALTER TABLE jobs ADD COLUMN "agent_id" VARCHAR;
ALTER TABLE jobs ADD COLUMN "device_id" VARCHAR;
ALTER TABLE jobs ADD COLUMN "token" BIGINT;
ALTER TABLE jobs ADD COLUMN "started_at" TIMESTAMPTZ;
ALTER TABLE jobs ADD COLUMN "stage" VARCHAR;
ALTER TABLE jobs ADD COLUMN "fraction" DOUBLE;
ALTER TABLE jobs ADD COLUMN "log_tail" VARCHAR;

-- What the operator says of hosts, above the labels that agents are started with.
CREATE TABLE host_labels (
    host_id VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    value VARCHAR NOT NULL,
    PRIMARY KEY (host_id, name)
);
