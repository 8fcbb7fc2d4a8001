-- A key and nothing else.
SELECT user_id, action
FROM events
GROUP BY user_id, action
