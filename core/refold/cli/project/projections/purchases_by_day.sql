-- Purchases and revenue per day.
SELECT
    (ts AT TIME ZONE 'UTC')::date               AS day,        -- UTC day of the purchase
    count(*)                                    AS purchases,  -- How many
    count(DISTINCT user_id)                     AS buyers,     -- By how many different users
    sum((metadata ->> 'amount')::numeric)       AS revenue     -- In the currency of `amount`
FROM events
WHERE action = 'purchase'
GROUP BY day
