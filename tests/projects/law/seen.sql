-- Merge without any aggregate: the keys alone.
SELECT user_id, action
FROM events
GROUP BY user_id, action
