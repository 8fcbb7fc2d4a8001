-- Recomputed by its GROUP BY, over facts: made of a funnel, which refold keeps in another form than it is written.
SELECT
    user_id,
    window_funnel(interval '1 hour', ts, action = 'view', action = 'buy') = 2 AS bought
FROM clicks
GROUP BY user_id
