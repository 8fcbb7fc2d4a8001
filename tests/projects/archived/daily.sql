-- A day and an action: counts, sums and means, two sets of values.
SELECT
    (ts AT TIME ZONE 'UTC')::date                           AS day,
    action,
    count(*)                                                AS events,
    count(DISTINCT user_id)                                 AS users,
    count(DISTINCT metadata->>'place')                      AS places,
    sum((metadata->>'n')::numeric)                          AS total,
    avg((metadata->>'n')::numeric)                          AS mean,
    sum(version) / count(*)                                 AS version
FROM events
GROUP BY day, action
