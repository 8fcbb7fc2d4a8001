-- The key alone, by hour: a slice is a day all the same.
SELECT date_trunc('hour', ts AT TIME ZONE 'UTC') AS hour, user_id
FROM events
GROUP BY hour, user_id
