-- How far each user came, and when.
SELECT
    user_id,
    window_funnel(interval '7 days', ts, action = 'view', action = 'cart', action = 'purchase') AS level,
    window_funnel_times(interval '7 days', ts, action = 'view', action = 'cart', action = 'purchase') AS reached_at
FROM events
WHERE user_id IS NOT NULL
GROUP BY user_id
