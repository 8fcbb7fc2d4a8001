-- How far a user came in a funnel, in the manner of ClickHouse's windowFunnel.
--
--     SELECT user_id,
--            refold.window_funnel(interval '7 days', ts, action = 'view', action = 'cart', action = 'purchase')
--     FROM refold.events
--     GROUP BY user_id
--
-- The largest k for which distinct events e1 … ek exist, where e_i matches step i, times do not decrease, and the
-- last is no later than the first plus the window. Events of one instant may stand in any order, every event of step
-- 1 may be the first, and an event serves one step at most. A NULL condition is false, a NULL window is no limit, a
-- row without a time is ignored. Days and months are those of UTC. A function of the set of rows, not of their order.
--
-- A funnel has at most 31 steps, as many for every row of a group, and one window: where windows differ, the longest
-- of the step 1 events of an instant counts for that instant.
--
-- No combine function: it would join the rows of several workers out of order, and sorting them again (in the leader)
-- takes longer than the workers save.
CREATE OR REPLACE AGGREGATE refold.window_funnel("window" interval, ts timestamptz, VARIADIC steps boolean[]) (
    SFUNC = refold.window_funnel_add,
    STYPE = bytea,
    FINALFUNC = refold.window_funnel_level,
    PARALLEL = SAFE
);

COMMENT ON AGGREGATE refold.window_funnel(interval, timestamptz, VARIADIC boolean[])
    IS 'Return the number of funnel steps taken in order, within the window that opens with the first step.';
