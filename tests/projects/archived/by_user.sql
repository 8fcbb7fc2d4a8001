-- A row for each user, by hash: extremes, and a division that fails for some events.
SELECT
    user_id,
    count(*)                                                AS events,
    min(ts)                                                 AS first_at,
    max(ts)                                                 AS last_at,
    bool_or(action = 'buy')                                 AS bought,
    max((metadata->>'n')::numeric)                          AS largest
FROM events
WHERE action <> 'noise'
GROUP BY user_id
