-- Users who reach each step of the funnel in projections/funnel_stages.sql, and the share that goes on.
CREATE OR REPLACE VIEW metrics.funnel_conversion AS
WITH reached AS (
    -- A user who reached level 3 has also reached 1 and 2.
    SELECT s.step, s.action, coalesce(sum(l.users), 0)::bigint AS users
    FROM (VALUES (1, 'view'), (2, 'cart'), (3, 'purchase')) AS s (step, action)
    LEFT JOIN (SELECT level, count(*) AS users FROM metrics.funnel_stages GROUP BY level) AS l ON l.level >= s.step
    GROUP BY s.step, s.action
)
SELECT
    step,
    action,
    users,
    round(users::numeric / nullif(first_value(users) OVER by_step, 0), 4) AS share_of_first,
    round(users::numeric / nullif(lag(users) OVER by_step, 0), 4)         AS share_of_previous
FROM reached
WINDOW by_step AS (ORDER BY step);

COMMENT ON VIEW metrics.funnel_conversion IS 'From looking to paying within a week: users at each step, and conversion.';
COMMENT ON COLUMN metrics.funnel_conversion.step IS 'Number of the step, from 1';
COMMENT ON COLUMN metrics.funnel_conversion.action IS 'Action of the step';
COMMENT ON COLUMN metrics.funnel_conversion.users IS 'Users who reached the step, in order and in time';
COMMENT ON COLUMN metrics.funnel_conversion.share_of_first IS 'Share of the users who reached step 1, from 0 to 1; null without such users';
COMMENT ON COLUMN metrics.funnel_conversion.share_of_previous IS 'Share of the users who reached the step before, from 0 to 1; null for step 1';
