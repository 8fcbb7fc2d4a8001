-- Users who did anything, per week. Days cannot be added up: who comes twice is one user.
SELECT
    date_trunc('week', ts AT TIME ZONE 'UTC')::date AS week,  -- Monday of the ISO week (UTC)
    count(DISTINCT user_id)                         AS users  -- Different users; events without a user do not count
FROM events
WHERE user_id IS NOT NULL
GROUP BY week
