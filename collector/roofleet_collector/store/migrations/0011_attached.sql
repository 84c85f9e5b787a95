-- What heartbeats tell of agents beside their being alive.

ALTER TABLE hosts ADD COLUMN "attached_since" TIMESTAMPTZ;
ALTER TABLE hosts ADD COLUMN "waiting_batches" BIGINT;
