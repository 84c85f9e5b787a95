-- Utilisation of each device over the last five minutes, in steps of ten seconds, oldest first.
SELECT device_id, epoch(now()) - epoch(time_bucket(INTERVAL 10 SECOND, read_at)) AS age_s,
       avg(utilization) AS utilization
FROM readings
WHERE read_at > now() - INTERVAL 5 MINUTE AND read_at < now() + INTERVAL 1 MINUTE AND utilization IS NOT NULL
GROUP BY device_id, age_s
ORDER BY device_id, age_s DESC
