-- Over facts: how far each user got towards a purchase within a day.
SELECT
    user_id,
    window_funnel(interval '1 day', ts, action = 'view', action = 'cart', action = 'purchase') AS level
FROM steps
GROUP BY user_id
