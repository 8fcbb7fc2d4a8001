-- Users who did anything, per month.
SELECT
    date_trunc('month', ts AT TIME ZONE 'UTC')::date AS month,  -- First day of the month (UTC)
    count(DISTINCT user_id)                          AS users   -- Different users; events without a user do not count
FROM events
WHERE user_id IS NOT NULL
GROUP BY month
