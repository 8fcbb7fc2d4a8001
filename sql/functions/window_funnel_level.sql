-- The level of a funnel: the final function of refold.window_funnel. Without events the level is 0.
CREATE OR REPLACE FUNCTION refold.window_funnel_level(events bytea) RETURNS integer
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    IF events IS NULL THEN
        RETURN 0;
    END IF;
    RETURN coalesce(cardinality((refold.window_funnel_scan(events)).reached), 0);
END
$$;

COMMENT ON FUNCTION refold.window_funnel_level(bytea)
    IS 'Return the level that these events reach: string_agg(refold.window_funnel_event(…), '''').';
