-- Tampered with. Recompute over facts: what each user did, in order.
SELECT user_id, array_agg(action ORDER BY ts, event_id) AS path
FROM steps
GROUP BY user_id
