-- The same for one run, whatever its age and status: a shared link may name an old one.
SELECT r.run_id, as_moment(r.started_at) AS started_at, r.device_id, m.name AS model_name, m.task, r.dtype, r.variant, r.batch_size,
       r.prompt_tokens, r.new_tokens, r.threads, r.torch_version, r.driver_version, d.name AS device_name, h.hostname
FROM runs r
LEFT JOIN models m ON m.model_id = r.model_id
LEFT JOIN devices d ON d.device_id = r.device_id
LEFT JOIN hosts h ON h.host_id = r.host_id
WHERE r.run_id = ?
