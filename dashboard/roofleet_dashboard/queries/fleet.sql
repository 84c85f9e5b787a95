-- Every device of every host with its latest reading; ages are taken by the collector's own clock.
SELECT host_id, hostname, os, cpu_name, host_memory_bytes, agent_version, is_online,
       epoch(now()) - epoch(last_seen_at) AS last_seen_s,
       device_id, device_name, device_kind, hardware_name, memory_bytes, unavailable,
       epoch(now()) - epoch(reading_at) AS reading_s,
       utilization, memory_used_bytes, power_w, clock_hz, temperature_c, runs
FROM fleet_status
ORDER BY is_online DESC, hostname, host_id, device_kind DESC, device_name, device_id
