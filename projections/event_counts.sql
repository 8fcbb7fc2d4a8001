-- Events per day, action and segment.
SELECT
    (ts AT TIME ZONE 'UTC')::date AS day,     -- UTC day on which it happened
    action,                                   -- What was done
    segment,                                  -- Segment of the users
    count(*)                      AS events,  -- How often
    count(DISTINCT user_id)       AS users    -- By how many different users
FROM enriched_events
GROUP BY day, action, segment
