-- Utilisation of each device over the last five minutes, in steps of ten seconds.
SELECT device_id, time_bucket(INTERVAL 10 SECOND, read_at) AS since, avg(utilization) AS utilization
FROM readings
WHERE read_at > now() - INTERVAL 5 MINUTE AND utilization IS NOT NULL
GROUP BY device_id, since
ORDER BY device_id, since
