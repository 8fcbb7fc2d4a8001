-- The events of a funnel by time, and those of one instant by step, events of several steps last.
-- By their bytes, high byte first: times before 2000, which are negative, come after the others. A user with both
-- is rare, and refold.window_funnel_resolve corrects the order.
CREATE OR REPLACE FUNCTION refold.window_funnel_sort(events bytea) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
AS $$
BEGIN
    RETURN (
        SELECT string_agg(substr(events, start, 20), '' ORDER BY substr(events, start, 20))
        FROM generate_series(1, length(events), 20) AS start
    );
END
$$;

COMMENT ON FUNCTION refold.window_funnel_sort(bytea)
    IS 'Return the events of a funnel sorted by their bytes: by time, and at the same instant by step.';
