-- The day on which each user was first seen.
SELECT
    user_id,                                          -- Who
    min((ts AT TIME ZONE 'UTC')::date) AS first_day   -- UTC day of the earliest event, late arrivals included
FROM events
WHERE user_id IS NOT NULL
GROUP BY user_id
