-- When the steps of the best chain were reached: as many times as refold.window_funnel counts steps, with the same
-- arguments and rules. Used side by side in one query, the two collect their rows only once.
--
-- Several chains may reach that level; these are the times of the one that starts first, and then takes each step as
-- early as it can (the lexicographically earliest times). No chain completes the level sooner.
CREATE OR REPLACE AGGREGATE refold.window_funnel_times("window" interval, ts timestamptz, VARIADIC steps boolean[]) (
    SFUNC = refold.window_funnel_add,
    STYPE = bytea,
    FINALFUNC = refold.window_funnel_chain,
    PARALLEL = SAFE
);

COMMENT ON AGGREGATE refold.window_funnel_times(interval, timestamptz, VARIADIC boolean[])
    IS 'Return the times at which the steps of refold.window_funnel were reached, by the earliest of the best chains.';
