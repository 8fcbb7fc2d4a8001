-- The same funnel in a query that has to be evaluated again for each user.
SELECT
    user_id,
    window_funnel(interval '7 days', ts, action = 'view', action = 'cart', action = 'purchase') = 3 AS bought,
    (window_funnel_times(interval '7 days', ts, action = 'view', action = 'cart', action = 'purchase'))[3] AS bought_at
FROM events
WHERE user_id IS NOT NULL
GROUP BY user_id
