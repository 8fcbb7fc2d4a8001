-- What each user did, in order.
SELECT
    user_id,
    array_agg(action ORDER BY ts, event_id) AS path
FROM events
WHERE user_id IS NOT NULL
GROUP BY user_id
