-- What each device gave over time, as finely as it is kept: readings as they came, then minutes, then hours. One row is one reading or what many of them say; the rows of a device do not overlap.
-- device_id: The device.
-- began_at: When it begins, or the instant of a reading.
-- width_s: How long it is: 0 for one reading, 60 or 3600 for what stands for many, in s.
-- readings: Readings that it stands for.
-- utilization_count: Readings that tell it: share of the last interval it was busy.
-- mean_utilization: Mean of those.
-- min_utilization: Least of those.
-- max_utilization: Most of those.
-- memory_used_bytes_count: Readings that tell it: memory in use.
-- mean_memory_used_bytes: Mean of those, in bytes.
-- min_memory_used_bytes: Least of those, in bytes.
-- max_memory_used_bytes: Most of those, in bytes.
-- power_w_count: Readings that tell it: power drawn.
-- mean_power_w: Mean of those, in W.
-- min_power_w: Least of those, in W.
-- max_power_w: Most of those, in W.
-- clock_hz_count: Readings that tell it: clock of its compute units.
-- mean_clock_hz: Mean of those, in Hz.
-- min_clock_hz: Least of those, in Hz.
-- max_clock_hz: Most of those, in Hz.
-- temperature_c_count: Readings that tell it: temperature.
-- mean_temperature_c: Mean of those, in degrees Celsius.
-- min_temperature_c: Least of those, in degrees Celsius.
-- max_temperature_c: Most of those, in degrees Celsius.
CREATE OR REPLACE VIEW reading_history AS
SELECT device_id, as_moment(read_at) AS began_at, 0::BIGINT AS width_s, 1::BIGINT AS readings,
       (utilization IS NOT NULL)::BIGINT AS utilization_count, utilization::DOUBLE AS mean_utilization,
       utilization AS min_utilization, utilization AS max_utilization,
       (memory_used_bytes IS NOT NULL)::BIGINT AS memory_used_bytes_count, memory_used_bytes::DOUBLE AS mean_memory_used_bytes,
       memory_used_bytes AS min_memory_used_bytes, memory_used_bytes AS max_memory_used_bytes,
       (power_w IS NOT NULL)::BIGINT AS power_w_count, power_w::DOUBLE AS mean_power_w,
       power_w AS min_power_w, power_w AS max_power_w,
       (clock_hz IS NOT NULL)::BIGINT AS clock_hz_count, clock_hz::DOUBLE AS mean_clock_hz,
       clock_hz AS min_clock_hz, clock_hz AS max_clock_hz,
       (temperature_c IS NOT NULL)::BIGINT AS temperature_c_count, temperature_c::DOUBLE AS mean_temperature_c,
       temperature_c AS min_temperature_c, temperature_c AS max_temperature_c
FROM readings
UNION ALL
SELECT device_id, began_at, width_s, readings,
       utilization_count, mean_utilization, min_utilization, max_utilization,
       memory_used_bytes_count, mean_memory_used_bytes, min_memory_used_bytes, max_memory_used_bytes,
       power_w_count, mean_power_w, min_power_w, max_power_w,
       clock_hz_count, mean_clock_hz, min_clock_hz, max_clock_hz,
       temperature_c_count, mean_temperature_c, min_temperature_c, max_temperature_c
FROM rolled_readings;
