-- Merge on the log: what happened on each day. Every event is in it, which makes it the campaign's count.
SELECT
    (ts AT TIME ZONE 'UTC')::date           AS day,
    action,
    count(*)                                AS events,
    sum((metadata->>'amount')::numeric)     AS amount,
    min(ts)                                 AS first_at
FROM events
GROUP BY day, action
