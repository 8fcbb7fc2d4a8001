-- An instant from JSON: epoch milliseconds, or ISO 8601 with an offset. NULL for anything else, never an error:
-- the calendar is checked before the cast. Digits below a microsecond are cut off.
CREATE OR REPLACE FUNCTION refold.instant(value jsonb) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
SET search_path = pg_catalog
AS $$
DECLARE
    part text[];
    ms numeric;
    year integer; month integer; day integer;
BEGIN
    IF jsonb_typeof(value) = 'number' THEN
        ms := value::numeric;
        IF ms <> trunc(ms) OR ms < -62135596800000 OR ms > 253402300799999 THEN
            RETURN NULL;
        END IF;
        -- Days and the rest apart: a double cannot hold microseconds so far from 1970.
        RETURN (timestamp '1970-01-01' + make_interval(days => div(ms, 86400000)::integer)
                + mod(ms, 86400000)::integer * interval '1 millisecond') AT TIME ZONE 'UTC';
    ELSIF jsonb_typeof(value) <> 'string' THEN
        RETURN NULL;
    END IF;
    part := regexp_match(value #>> '{}',
        '^(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,6})\d*)?)? ?(?:([Zz])|([+-])(\d\d)(?::?(\d\d))?)$');
    IF part IS NULL THEN
        RETURN NULL;
    END IF;
    year := part[1]; month := part[2]; day := part[3];
    IF year = 0 OR month NOT BETWEEN 1 AND 12 OR day = 0
       OR day > (CASE WHEN month IN (4, 6, 9, 11) THEN 30 WHEN month <> 2 THEN 31
                      WHEN year % 4 = 0 AND (year % 100 <> 0 OR year % 400 = 0) THEN 29 ELSE 28 END)
       OR part[4]::integer > 23 OR part[5]::integer > 59 OR coalesce(part[6], '0')::integer > 59
       OR coalesce(part[10], '0')::integer > 23 OR coalesce(part[11], '0')::integer > 59 THEN
        RETURN NULL;
    END IF;
    RETURN (make_timestamp(year, month, day, part[4]::integer, part[5]::integer, 0)
            + coalesce(part[6], '0')::integer * interval '1 second'
            + rpad(coalesce(part[7], '0'), 6, '0')::integer * interval '1 microsecond'
            - CASE part[9] WHEN '-' THEN -1 ELSE 1 END * make_interval(
                  hours => coalesce(part[10], '0')::integer, mins => coalesce(part[11], '0')::integer)
           ) AT TIME ZONE 'UTC';
END
$$;

COMMENT ON FUNCTION refold.instant(jsonb)
    IS 'Epoch milliseconds or ISO 8601 with offset as timestamptz; NULL when it is neither.';
