-- Tampered with. Merge over facts: what each user has bought.
SELECT user_id, count(*) AS purchases, sum(amount) AS amount, max(ts) AS last_at
FROM exposed_purchases
GROUP BY user_id
