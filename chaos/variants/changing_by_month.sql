-- Deployed in the middle of it: by month and action.
SELECT date_trunc('month', ts, 'UTC') AS month, action, count(*) AS events, count(DISTINCT user_id) AS users
FROM events
GROUP BY month, action
