-- The slice of a day: days since 1970. Rows without a day have the smallest number, so that they are in some slice.
CREATE OR REPLACE FUNCTION refold.day_slice(day date) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
SELECT CASE
    WHEN isfinite(day) THEN day - date '1970-01-01'
    WHEN day = 'infinity' THEN 2147483647
    ELSE -2147483648
END
$$;
