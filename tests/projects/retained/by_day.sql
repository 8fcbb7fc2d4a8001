-- Merge by day: extremes, sums, a mean, HAVING, and a condition.
SELECT
    (ts AT TIME ZONE 'UTC')::date                       AS day,
    action,
    count(*)                                            AS events,
    sum((metadata->>'n')::numeric)                      AS total,
    avg((metadata->>'n')::numeric)                      AS mean,
    min(ts)                                             AS first_at
FROM events
WHERE action <> 'noise'
GROUP BY day, action
HAVING count(*) <> 2
