-- Users who did anything, per day.
CREATE OR REPLACE VIEW metrics.daily_active_users AS
SELECT day, users FROM metrics.active_users;

COMMENT ON VIEW metrics.daily_active_users IS 'Different users with at least one event, per day.';
COMMENT ON COLUMN metrics.daily_active_users.day IS 'UTC day';
COMMENT ON COLUMN metrics.daily_active_users.users IS 'Different users; events without a user do not count';
