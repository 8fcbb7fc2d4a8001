-- A single row.
SELECT 'all' AS scope, count(*) AS events, count(DISTINCT user_id) AS users, max(event_id) AS last_id
FROM events
GROUP BY scope
