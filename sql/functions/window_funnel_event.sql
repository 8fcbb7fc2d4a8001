-- A row in the form that the funnel keeps, or NULL if it matches no step. 20 bytes: ts | code | deadline, where
--   ts        microseconds since 2000-01-01 UTC, eight bytes (as timestamptz_send returns it)
--   code      the step that it matches, or minus a bit mask if it matches several; four bytes
--   deadline  ts + window, if it matches step 1 and a chain may start here
--
-- Bytes, because no PL/pgSQL function can keep an array between the rows of a group without unpacking and
-- packing all of it for each row. Offset zero, because days and months must not depend on TimeZone; as an
-- interval, because looking the name 'UTC' up takes longer.
CREATE OR REPLACE FUNCTION refold.window_funnel_event("window" interval, ts timestamptz, VARIADIC steps boolean[])
RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN true = ANY (steps) THEN
    timestamptz_send(ts)
    || int4send(
        CASE
            WHEN cardinality(steps) <= 31
             AND array_position(steps, true, array_position(steps, true) + 1) IS NULL
            THEN array_position(steps, true)
            ELSE refold.window_funnel_code(steps)
        END)
    || timestamptz_send(
        CASE
            WHEN steps[1]
            THEN coalesce((ts AT TIME ZONE interval '0' + "window") AT TIME ZONE interval '0', 'infinity')
            ELSE ts
        END)
END;

COMMENT ON FUNCTION refold.window_funnel_event(interval, timestamptz, boolean[])
    IS 'Return a row in the form that a funnel keeps (20 bytes), or NULL if it matches no step.';
