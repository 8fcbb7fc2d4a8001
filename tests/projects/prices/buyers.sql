-- Members on the log.
SELECT public.price(metadata ->> 'price') AS price, count(DISTINCT user_id) AS users FROM events GROUP BY price
