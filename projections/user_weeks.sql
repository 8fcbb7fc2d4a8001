-- The weeks in which each user did anything: a row for each, however many events it had. Retention is counted from them.
SELECT
    user_id,                                                  -- Who
    date_trunc('week', ts AT TIME ZONE 'UTC')::date AS week   -- Monday of the ISO week (UTC)
FROM events
WHERE user_id IS NOT NULL
GROUP BY user_id, week
