-- Recompute over facts with a division: the first thing that each user bought, and what they paid for a kilogram.
SELECT
    user_id,
    (array_agg(event_id ORDER BY ts, event_id))[1] AS first_purchase,
    round(sum(amount) / sum(weight), 2) AS price
FROM steps
WHERE action = 'purchase'
GROUP BY user_id
