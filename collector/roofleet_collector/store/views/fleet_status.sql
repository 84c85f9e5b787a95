-- One row a device that can run something: where it sits, when its host was last seen, and its latest reading of the last hour.
-- host_id: The host.
-- hostname: The host's name.
-- os: Operating system of the host.
-- cpu_name: Processor of the host.
-- host_memory_bytes: Main memory of the host, in bytes.
-- agent_version: Roofleet version of the agent.
-- last_seen_at: Last heartbeat that reached the collector.
-- attached_since: When its agent attached, the last time that it did.
-- waiting_batches: Batches that its agent held unsent at the last heartbeat.
-- clock_offset_ns: Its clock less the collector's at the last heartbeat, in ns.
-- lost_rows: Rows that its agent let go of unsent, all time.
-- is_online: Whether that was within the last 20 seconds.
-- device_id: The device.
-- device_name: The device's name.
-- device_kind: `cpu`, `gpu` or `tpu`.
-- hardware_name: The catalogue's slug for it, where known.
-- memory_bytes: Memory it computes in, in bytes.
-- unavailable: JSON object: reading the device does not give, and why.
-- reading_at: When the latest reading was taken; NULL, like the gauges, if there is none of the last hour. One from more than a minute in the future is left out: its clock is wrong.
-- utilization: Share of its last interval it was busy, 0 to 1.
-- memory_used_bytes: Memory in use, in bytes.
-- power_w: Power drawn, in W.
-- clock_hz: Clock of its compute units, in Hz.
-- temperature_c: Temperature, in degrees Celsius.
-- runs: Runs it has done.
CREATE OR REPLACE VIEW fleet_status AS
WITH latest AS (
    -- a clock that is ahead must not keep what was read later from being shown; of one moment what came last
    SELECT device_id, arg_max(r, {'at': read_at, 'place': r.rowid}) AS top
    FROM (SELECT *, rowid FROM readings
          WHERE read_at > now() - INTERVAL 1 HOUR AND read_at < now() + INTERVAL 1 MINUTE) r
    GROUP BY device_id
),
gone AS (SELECT agent_id, sum(rows)::BIGINT AS lost_rows FROM losses GROUP BY agent_id),
counted AS (SELECT device_id, count(*) AS runs FROM runs WHERE status = 'done' GROUP BY device_id)
SELECT h.host_id, h.hostname, h.os, h.cpu_name, h.memory_bytes AS host_memory_bytes, h.agent_version,
       as_moment(h.last_seen_at) AS last_seen_at, as_moment(h.attached_since) AS attached_since, h.waiting_batches,
       h.clock_offset_ns, coalesce(g.lost_rows, 0) AS lost_rows, h.last_seen_at > now() - INTERVAL 20 SECOND AS is_online,
       d.device_id, d.name AS device_name, d.kind AS device_kind, d.hardware_name, d.memory_bytes,
       d.unavailable, l.top.read_at AS reading_at, l.top.utilization AS utilization,
       l.top.memory_used_bytes AS memory_used_bytes, l.top.power_w AS power_w, l.top.clock_hz AS clock_hz,
       l.top.temperature_c AS temperature_c, coalesce(c.runs, 0) AS runs
FROM hosts h
LEFT JOIN devices d ON d.host_id = h.host_id AND d.backend <> 'meta'
LEFT JOIN latest l ON l.device_id = d.device_id
LEFT JOIN gone g ON g.agent_id = h.agent_id
LEFT JOIN counted c ON c.device_id = d.device_id
-- a host on which models were only counted is no part of the fleet
WHERE d.device_id IS NOT NULL OR h.host_id NOT IN (SELECT host_id FROM devices WHERE backend = 'meta');
