-- Tampered with. Members: how many users there were on each day.
SELECT (ts AT TIME ZONE 'UTC')::date AS day, count(*) AS events, count(DISTINCT user_id) AS users
FROM events
GROUP BY day
