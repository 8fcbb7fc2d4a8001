-- Recomputed from rows that stay.
SELECT user_id, array_agg(action ORDER BY ts, event_id) AS path
FROM clicks
GROUP BY user_id
