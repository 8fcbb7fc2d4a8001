-- Every mergeable aggregate at once, some of them only inside expressions or HAVING.
SELECT
    (ts AT TIME ZONE 'UTC')::date                       AS day,
    action,
    count(*)                                            AS events,
    count(user_id)                                      AS known,
    sum((metadata->>'n')::numeric)                      AS total,
    min(ts)                                             AS first_at,
    max((metadata->>'n')::numeric)                      AS largest,
    bool_and((metadata->>'n') IS NOT NULL)              AS all_numbered,
    bool_and((metadata->>'n')::numeric > 0)             AS all_positive,
    bool_or((metadata->>'n')::numeric > 5)              AS any_large,
    avg((metadata->>'n')::numeric)                      AS mean,
    count(*) FILTER (WHERE user_id IS NULL)             AS anonymous,
    avg(version) FILTER (WHERE action = 'buy')          AS mean_version,
    round(100.0 * count(user_id) / count(*), 1)         AS known_percent,
    max(ts) - min(ts)                                   AS span
FROM events
GROUP BY day, action
HAVING count(*) > 1 OR sum((metadata->>'n')::numeric) > 0
