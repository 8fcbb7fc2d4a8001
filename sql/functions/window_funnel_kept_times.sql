-- The times of the best chain out of what refold.window_funnel_fold keeps.
CREATE OR REPLACE FUNCTION refold.window_funnel_kept_times(kept bytea) RETURNS timestamptz[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
AS $$
DECLARE
    times timestamptz[] := '{}';
BEGIN
    FOR step IN 1..get_byte(kept, 0) LOOP
        times := times || refold.window_funnel_time(('x' || encode(substr(kept, 8 * step - 5, 8), 'hex'))::bit(64)::bigint);
    END LOOP;
    RETURN times;
END
$$;

COMMENT ON FUNCTION refold.window_funnel_kept_times(bytea)
    IS 'When the steps of the best chain were reached, out of what refold.window_funnel_fold keeps.';
