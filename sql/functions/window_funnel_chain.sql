-- When the steps of the best chain were reached: the final function of refold.window_funnel_times.
--
-- Of the chains of the highest level, the one with the lexicographically earliest times. Let the level be first
-- completed at T, by a chain that starts at s. An anchor a <= s open until T or longer can stand in for s, and no
-- anchor whose deadline is before T completes anything. So the chain starts at the first anchor open until T, and
-- from there takes every step at the first event that allows it. It ends at T.
CREATE OR REPLACE FUNCTION refold.window_funnel_chain(events bytea) RETURNS timestamptz[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    scanned record;
    bits varbit;
    level integer;
    step integer := 1;      -- the next one
    code integer;
    times timestamptz[] := '{}';
BEGIN
    IF events IS NULL THEN
        RETURN times;
    END IF;
    scanned := refold.window_funnel_scan(events);
    level := coalesce(cardinality(scanned.reached), 0);
    bits := ('x' || encode(scanned.events, 'hex'))::varbit;
    FOR start IN 1..length(bits) BY 160 LOOP
        EXIT WHEN step > level;
        code := substring(bits, start + 64, 32)::bit(32)::integer;
        CONTINUE WHEN code <> step AND (code > 0 OR -code & (1 << (step - 1)) = 0);
        CONTINUE WHEN step = 1 AND substring(bits, start + 96, 64)::bit(64)::bigint < scanned.reached[level];
        times := times || refold.window_funnel_time(substring(bits, start, 64)::bit(64)::bigint);
        step := step + 1;
    END LOOP;
    RETURN times;
END
$$;

COMMENT ON FUNCTION refold.window_funnel_chain(bytea)
    IS 'Return the times of the best chain of these events: string_agg(refold.window_funnel_event(…), '''').';
