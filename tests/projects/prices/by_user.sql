-- Merge over the facts.
SELECT user_id, count(*) AS events, sum(price) AS total FROM paid GROUP BY user_id
