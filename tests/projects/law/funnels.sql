-- Funnels over facts, each kept in its row.
SELECT
    user_id,
    window_funnel(interval '1 hour', ts, action = 'view', action = 'buy')               AS level,
    window_funnel_times(interval '1 hour', ts, action = 'view', action = 'buy')         AS reached_at,
    window_funnel(NULL, ts, n > 0, action = 'buy', n < 3) FILTER (WHERE n IS NOT NULL)  AS by_number
FROM clicks
GROUP BY user_id
