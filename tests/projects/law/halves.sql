-- Recomputed by its GROUP BY, on the log: two halves of one user are evaluated together, and fail together.
SELECT
    user_id,
    count(*)                                                                        AS events,
    array_agg(event_id ORDER BY ts, event_id)                                       AS ids,
    1 / CASE WHEN count(*) FILTER (WHERE metadata->>'n' = 'half') > 1 THEN 0 ELSE 1 END AS whole
FROM events
WHERE metadata ? 'n'
GROUP BY user_id
