-- Users who did anything, per month; counted over the events, for the reason given in weekly_active_users.sql.
CREATE OR REPLACE VIEW metrics.monthly_active_users WITH (security_barrier) AS
SELECT month, count(*) AS users
FROM (
    SELECT DISTINCT date_trunc('month', ts AT TIME ZONE 'UTC')::date AS month, user_id
    FROM metrics.enriched_events
    WHERE user_id IS NOT NULL
) AS seen
GROUP BY month;

COMMENT ON VIEW metrics.monthly_active_users IS 'Different users with at least one event, per month.';
COMMENT ON COLUMN metrics.monthly_active_users.month IS 'First day of the month (UTC)';
COMMENT ON COLUMN metrics.monthly_active_users.users IS 'Different users; events without a user do not count';
