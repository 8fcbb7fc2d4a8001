-- One row: what is published about a data set.
SELECT
    'all'                                                   AS scope,
    count(*)                                                AS events,
    count(DISTINCT user_id)                                 AS users,
    count(DISTINCT action)                                  AS actions,
    count(DISTINCT (ts AT TIME ZONE 'UTC')::date)           AS days
FROM events
GROUP BY scope
