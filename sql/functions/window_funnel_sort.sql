-- The events of a funnel by time, and those of one instant by step, events of several steps last.
CREATE OR REPLACE FUNCTION refold.window_funnel_sort(events bytea) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
AS $$
BEGIN
    RETURN (
        -- Times are stored high byte first, so bytes sort as times do; but a time before 2000 is negative,
        -- and its first byte is 128 or more.
        SELECT string_agg(
            substr(events, start, 20), '' ORDER BY get_byte(events, start - 1) < 128, substr(events, start, 20)
        )
        FROM generate_series(1, length(events), 20) AS start
    );
END
$$;

COMMENT ON FUNCTION refold.window_funnel_sort(bytea)
    IS 'The events of a funnel by time, and those of one instant by step.';
