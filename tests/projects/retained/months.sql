-- By month, over another metric: a slice is a whole month.
SELECT
    date_trunc('month', ts AT TIME ZONE 'UTC')::date    AS month,
    count(*)                                            AS events,
    count(DISTINCT user_id)                             AS users,
    max(ts)                                             AS last_at
FROM clicks
GROUP BY month
