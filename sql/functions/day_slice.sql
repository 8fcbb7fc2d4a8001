-- The slice of a day: days since 1970. Rows without a day get the smallest number, so that each row is in a slice.
CREATE OR REPLACE FUNCTION refold.day_slice(day date) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
SELECT CASE
    WHEN isfinite(day) THEN day - date '1970-01-01'
    WHEN day = 'infinity' THEN 2147483647
    ELSE -2147483648
END
$$;
