-- Events per day and action.
SELECT
    (ts AT TIME ZONE 'UTC')::date AS day,
    action,
    count(*)                      AS events
FROM events
GROUP BY day, action
