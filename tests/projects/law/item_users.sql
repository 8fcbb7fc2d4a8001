-- Members over facts over a list.
SELECT
    item,
    count(DISTINCT user_id)     AS users,
    count(*)                    AS times
FROM notable
GROUP BY item
