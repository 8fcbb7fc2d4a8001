-- Recomputed by a declared key, on the log: sessions end after half an hour of silence.
-- key: user_id
WITH marked AS (
    SELECT
        user_id,
        event_id,
        ts,
        CASE
            WHEN ts - lag(ts) OVER (PARTITION BY user_id ORDER BY ts, event_id) <= interval '30 minutes' THEN 0
            ELSE 1
        END AS starts
    FROM events
    WHERE user_id IS NOT NULL
),
numbered AS (
    SELECT
        user_id,
        ts,
        sum(starts) OVER (PARTITION BY user_id ORDER BY ts, event_id) AS session
    FROM marked
)
SELECT
    user_id,
    session,
    min(ts)     AS started_at,
    max(ts)     AS ended_at,
    count(*)    AS events
FROM numbered
GROUP BY user_id, session
