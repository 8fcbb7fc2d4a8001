-- Merge on the log.
SELECT user_id, count(*) AS events, sum(public.price(metadata ->> 'price')) AS total FROM events GROUP BY user_id
