-- Recompute with a division: the first thing that each user bought, and what they paid for a kilogram.
SELECT
    user_id,
    (array_agg(event_id ORDER BY ts, event_id))[1] AS first_purchase,
    round(sum((metadata->>'amount')::numeric) / sum((metadata->>'weight')::numeric), 2) AS price
FROM events
WHERE action = 'purchase'
GROUP BY user_id
