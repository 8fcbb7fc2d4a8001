-- Users who did anything, per week. Days cannot be added up: who comes twice is one user. So each user is counted
-- once a week over the events themselves; DISTINCT first, which hashes, where count(DISTINCT …) would sort.
CREATE OR REPLACE VIEW metrics.weekly_active_users WITH (security_barrier) AS
SELECT week, count(*) AS users
FROM (
    SELECT DISTINCT cohort AS week, user_id FROM metrics.enriched_events WHERE user_id IS NOT NULL
) AS seen
GROUP BY week;

COMMENT ON VIEW metrics.weekly_active_users IS 'Different users with at least one event, per ISO week.';
COMMENT ON COLUMN metrics.weekly_active_users.week IS 'Monday of the ISO week (UTC)';
COMMENT ON COLUMN metrics.weekly_active_users.users IS 'Different users; events without a user do not count';
