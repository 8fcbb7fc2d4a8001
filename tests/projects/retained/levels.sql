-- A funnel by day and user.
SELECT
    (ts AT TIME ZONE 'UTC')::date                       AS day,
    user_id,
    count(*)                                            AS events,
    window_funnel(interval '6 hours', ts, action = 'view', action = 'buy') AS level
FROM events
WHERE action <> 'noise'
GROUP BY day, user_id
