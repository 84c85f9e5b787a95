-- What agents had to let go of before it was sent.

CREATE TABLE losses (
    "loss_id" VARCHAR NOT NULL,
    "agent_id" VARCHAR NOT NULL,
    "table_name" VARCHAR NOT NULL,
    "reason" VARCHAR NOT NULL,
    "rows" BIGINT NOT NULL,
    "batches" BIGINT NOT NULL,
    "first_at" TIMESTAMPTZ NOT NULL,
    "last_at" TIMESTAMPTZ NOT NULL
);
