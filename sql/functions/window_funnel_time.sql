-- A time from its eight bytes: the inverse of timestamptz_send.
-- Days and microseconds are added separately, because multiplying an interval uses a float.
CREATE OR REPLACE FUNCTION refold.window_funnel_time(microseconds bigint) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
RETURN CASE microseconds
    WHEN 9223372036854775807 THEN timestamptz 'infinity'
    WHEN -9223372036854775808 THEN timestamptz '-infinity'
    ELSE (
        timestamp '2000-01-01'
        + make_interval(days => (microseconds / 86400000000)::integer)
        + (microseconds % 86400000000) * interval '1 microsecond'
    ) AT TIME ZONE interval '0'
END;

COMMENT ON FUNCTION refold.window_funnel_time(bigint)
    IS 'Return the time a number of microseconds after 2000-01-01 00:00 UTC.';
