-- How far each user got from looking to paying within a week, and when each step was reached.
SELECT
    user_id,   -- Who
    window_funnel(
        interval '7 days', ts, action = 'view', action = 'cart', action = 'purchase'
    ) AS level,  -- Steps reached in order: 0 none, 1 view, 2 cart, 3 purchase
    window_funnel_times(
        interval '7 days', ts, action = 'view', action = 'cart', action = 'purchase'
    ) AS reached_at  -- When each of those steps was reached
FROM enriched_events
WHERE user_id IS NOT NULL
GROUP BY user_id
