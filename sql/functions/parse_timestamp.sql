-- An instant from JSON: epoch milliseconds, or ISO 8601 with an offset. NULL for any other value, and never
-- an error: the pattern excludes what the cast would refuse. The same rules as refold.model.event.timestamps in Python.
CREATE OR REPLACE FUNCTION refold.parse_timestamp(value jsonb) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
SET search_path = pg_catalog
AS $$
DECLARE
    ms numeric;
    written text;
    day integer;
BEGIN
    IF jsonb_typeof(value) = 'number' THEN
        ms := value::numeric;
        -- 1e3 is a whole number, 1000.0 is not: as in Python.
        IF scale(ms) > 0 OR ms < -62135596800000 OR ms > 253402300799999 THEN
            RETURN NULL;
        END IF;
        -- Add days and the rest separately: a double cannot hold microseconds so far from 1970.
        RETURN (timestamp '1970-01-01' + make_interval(days => div(ms, 86400000)::integer)
                + mod(ms, 86400000)::integer * interval '1 millisecond') AT TIME ZONE 'UTC';
    ELSIF jsonb_typeof(value) <> 'string' THEN
        RETURN NULL;
    END IF;
    written := value #>> '{}';
    IF written !~ ('^(?!0000)[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])[T ]'
                   '(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.][0-9]+)?)?'
                   '(?:Z|[+-](?:0[0-9]|1[0-5])(?::?[0-5][0-9]|:[0-5][0-9]:[0-5][0-9])?)$') THEN
        RETURN NULL;
    END IF;
    -- The pattern still admits dates such as 30 February.
    day := substr(written, 9, 2);
    IF day > 28 AND day > extract(day FROM make_date(substr(written, 1, 4)::integer, substr(written, 6, 2)::integer, 1)
                                           + interval '1 month - 1 day') THEN
        RETURN NULL;
    END IF;
    -- Cut off digits below a microsecond, which the cast would round. No backslashes: the body is parsed in the caller's
    -- session, whose standard_conforming_strings may give them another meaning.
    RETURN regexp_replace(written, '(?<=[.][0-9]{6})[0-9]+', '')::timestamptz;
END
$$;

COMMENT ON FUNCTION refold.parse_timestamp(jsonb)
    IS 'Return epoch milliseconds or ISO 8601 with offset as timestamptz; NULL for any other value.';
