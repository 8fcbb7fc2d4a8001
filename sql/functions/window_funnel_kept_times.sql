-- The times of the best chain from the state of refold.window_funnel_fold.
CREATE OR REPLACE FUNCTION refold.window_funnel_kept_times(kept bytea) RETURNS timestamptz[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
AS $$
DECLARE
    -- Within two centuries a float has all microseconds, and this is what every row that is written takes.
    near CONSTANT bigint := 200::bigint * 365 * 86400 * 1000000;
    times timestamptz[] := '{}';
    ts bigint;
BEGIN
    FOR step IN 1..get_byte(kept, 0) LOOP
        ts := ('x' || encode(substr(kept, 8 * step - 5, 8), 'hex'))::bit(64)::bigint;
        IF ts BETWEEN -near AND near THEN
            times[step] := timestamptz '2000-01-01 00:00+00' + ts * interval '1 microsecond';
        ELSE
            times[step] := refold.window_funnel_time(ts);
        END IF;
    END LOOP;
    RETURN times;
END
$$;

COMMENT ON FUNCTION refold.window_funnel_kept_times(bytea)
    IS 'Return the times of the best chain from the state of refold.window_funnel_fold.';
