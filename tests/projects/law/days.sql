-- Recomputed by its GROUP BY, on the log, by a coarse key; HAVING takes rows away again.
SELECT
    (ts AT TIME ZONE 'UTC')::date                       AS day,
    mode() WITHIN GROUP (ORDER BY action)               AS usual,
    count(DISTINCT (user_id, action))                   AS doings
FROM events
GROUP BY day
HAVING count(*) % 3 <> 0
