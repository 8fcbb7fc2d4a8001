-- Two sets by day.
SELECT
    (ts AT TIME ZONE 'UTC')::date                       AS day,
    count(*)                                            AS events,
    count(DISTINCT user_id)                             AS users,
    count(DISTINCT metadata->>'place') FILTER (WHERE action = 'buy') AS places
FROM events
GROUP BY day
