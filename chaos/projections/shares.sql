-- Merge with a division, which the view makes: what each user paid for a kilogram.
SELECT
    user_id,
    count(*) AS purchases,
    round(sum((metadata->>'amount')::numeric) / sum((metadata->>'weight')::numeric), 2) AS price
FROM events
WHERE action = 'purchase'
GROUP BY user_id
