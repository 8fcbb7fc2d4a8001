-- Recomputed on the log.
SELECT user_id, array_agg(public.price(metadata ->> 'price') ORDER BY ts, event_id) AS prices FROM events GROUP BY user_id
