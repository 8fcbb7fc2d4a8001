-- Users who did anything, per day.
SELECT
    (ts AT TIME ZONE 'UTC')::date AS day,   -- UTC day
    count(DISTINCT user_id)       AS users  -- Different users with at least one event
FROM events
GROUP BY day
