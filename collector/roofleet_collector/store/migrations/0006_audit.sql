-- Who was refused, and who changed what.

CREATE TABLE audit (
    "happened_at" TIMESTAMPTZ NOT NULL,
    "identity" VARCHAR NOT NULL,
    "role" VARCHAR,
    "what" VARCHAR NOT NULL,
    "target" VARCHAR,
    "outcome" VARCHAR NOT NULL,
    "reason" VARCHAR,
    "peer" VARCHAR,
    "times" BIGINT NOT NULL
);
