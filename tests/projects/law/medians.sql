-- Recomputed by its GROUP BY, over facts; the key may be null.
SELECT
    user_id,
    count(*)                                            AS events,
    percentile_disc(0.5) WITHIN GROUP (ORDER BY n)      AS middle,
    array_agg(action ORDER BY ts, event_id)             AS path
FROM clicks
GROUP BY user_id
