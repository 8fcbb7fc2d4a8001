-- Recomputed by day.
SELECT
    (ts AT TIME ZONE 'UTC')::date                       AS day,
    mode() WITHIN GROUP (ORDER BY action)               AS usual,
    count(DISTINCT (user_id, action))                   AS doings
FROM events
GROUP BY day
HAVING count(*) % 3 <> 0
