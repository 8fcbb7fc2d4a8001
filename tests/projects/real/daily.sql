-- Events and users a day.
SELECT
    (ts AT TIME ZONE 'UTC')::date   AS day,
    action,
    count(*)                        AS events,
    count(DISTINCT user_id)         AS users
FROM events
GROUP BY day, action
