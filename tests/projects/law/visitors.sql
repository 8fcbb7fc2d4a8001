-- Three distinct counts on the log, one of them filtered, beside other aggregates; the key may be null.
SELECT
    metadata->>'place'                                              AS place,
    count(*)                                                        AS events,
    count(DISTINCT user_id)                                         AS users,
    count(DISTINCT (metadata->>'n')::numeric)                       AS numbers,
    count(DISTINCT user_id) FILTER (WHERE action = 'buy')           AS buyers,
    avg((metadata->>'n')::numeric)                                  AS mean,
    bool_or(action = 'buy')                                         AS sold
FROM events
WHERE action <> 'noise'
GROUP BY place
HAVING count(*) > count(DISTINCT user_id) FILTER (WHERE action = 'buy')
