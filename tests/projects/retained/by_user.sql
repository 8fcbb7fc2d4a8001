-- No day in the key.
SELECT user_id, count(*) AS events
FROM events
GROUP BY user_id
