-- Rows that were set aside, clocks of hosts, and the keys of what is stored as ranges: one row a batch, under an
-- index that lies in memory, would grow for as long as agents send.

CREATE TABLE rejected_rows (
    "table_name" VARCHAR NOT NULL,
    "agent_id" VARCHAR NOT NULL,
    "epoch" BIGINT NOT NULL,
    "sequence" BIGINT NOT NULL,
    "row_index" BIGINT NOT NULL,
    "reason" VARCHAR NOT NULL,
    "content" VARCHAR NOT NULL,
    "received_at" TIMESTAMPTZ NOT NULL
);

ALTER TABLE hosts ADD COLUMN "clock_offset_ns" BIGINT;

CREATE TABLE ingest_ranges AS
SELECT agent_id, epoch, min(sequence) AS first_sequence, max(sequence) AS last_sequence,
       max(stored_at) AS stored_at
FROM (
    SELECT *, sequence - row_number() OVER (PARTITION BY agent_id, epoch ORDER BY sequence) AS island
    FROM ingest_log
)
GROUP BY agent_id, epoch, island;

DROP TABLE ingest_log;

CREATE TABLE ingest_log (
    agent_id VARCHAR NOT NULL,
    epoch BIGINT NOT NULL,
    first_sequence BIGINT NOT NULL,
    last_sequence BIGINT NOT NULL,
    stored_at TIMESTAMPTZ NOT NULL
);

INSERT INTO ingest_log SELECT * FROM ingest_ranges ORDER BY agent_id, epoch, first_sequence;

DROP TABLE ingest_ranges;
