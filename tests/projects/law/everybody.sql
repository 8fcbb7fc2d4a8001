-- A funnel with a key that has all events, and what else can be merged.
SELECT
    'all' AS scope,
    window_funnel(interval '1 day', ts, action = 'view', action IN ('view', 'buy'), action = 'buy', action = 'noise',
                  action = 'buy', action = 'view', action = 'view', action = 'buy') AS level,
    window_funnel_times(interval '1 day', ts, action = 'view', action = 'buy', version > 1, action = 'noise') AS times,
    count(*) AS events,
    max(ts) FILTER (WHERE action = 'buy') AS bought_at
FROM events
WHERE action IN ('view', 'buy', 'noise')
GROUP BY scope
