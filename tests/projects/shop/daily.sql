-- Members, with mergeable aggregates beside: what happened on each day.
SELECT
    (ts AT TIME ZONE 'UTC')::date           AS day,
    action,
    count(*)                                AS events,
    count(DISTINCT user_id)                 AS users,
    sum((metadata->>'amount')::numeric)     AS amount
FROM events
GROUP BY day, action
