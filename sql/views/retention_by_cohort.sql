-- Returning users: users by the week in which they were first seen, and how many of them had an event n weeks later.
-- Both weeks come from the same metric, so that they always agree; a user without an event in a week has no row for it.
CREATE OR REPLACE VIEW metrics.retention_by_cohort AS
WITH since AS (
    SELECT min(week) OVER (PARTITION BY user_id) AS first_week, week FROM metrics.user_weeks
), counted AS (
    SELECT first_week, (week - first_week) / 7 AS weeks_since, count(*) AS users FROM since GROUP BY 1, 2
)
SELECT
    first_week                                                                                   AS cohort,
    weeks_since,
    users,
    round(users::numeric / first_value(users) OVER (PARTITION BY first_week ORDER BY weeks_since), 4) AS share
FROM counted;

COMMENT ON VIEW metrics.retention_by_cohort IS 'Users by the week in which they were first seen, and how many of them had an event in later weeks.';
COMMENT ON COLUMN metrics.retention_by_cohort.cohort IS 'Monday of the ISO week (UTC) in which the users were first seen';
COMMENT ON COLUMN metrics.retention_by_cohort.weeks_since IS 'Weeks after that week; 0 is the week itself';
COMMENT ON COLUMN metrics.retention_by_cohort.users IS 'Users of the cohort with an event in that week';
COMMENT ON COLUMN metrics.retention_by_cohort.share IS 'Share of all users of the cohort, from 0 to 1';
