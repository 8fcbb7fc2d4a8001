-- Whether metadata is certainly within the limits, as cheaply as can be told: for most events this is all that is looked
-- at. Up to about a thousand bytes it costs least to print it (0.1 µs for 40 bytes, where a walk through its numbers takes
-- 1.2; 6 against 20 for 900), beyond that to print its numbers alone. No SET, and STABLE as what it calls: else it would
-- not be inlined.
CREATE OR REPLACE FUNCTION refold.plain_metadata(metadata jsonb) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
SELECT pg_column_compression(metadata) IS NULL
    -- One character is printed as six bytes at most, and the numbers are few (below).
    AND pg_column_size(metadata) <= 100000
    -- Each level takes 8 bytes.
    AND (pg_column_size(metadata) <= 800 OR NOT jsonb_path_exists(metadata, 'strict $.**{100}'))
    -- jsonb holds 1e131000 in a few bytes; what counts is what readers get.
    AND CASE WHEN pg_column_size(metadata) <= 1000 THEN octet_length(metadata::text) <= 2000
             ELSE octet_length(jsonb_path_query_array(metadata, 'strict $.** ? (@.type() == "number")')::text) <= 2000
        END
$$;

COMMENT ON FUNCTION refold.plain_metadata(jsonb)
    IS 'Whether metadata is certainly within the limits of the log, see refold.metadata_problem.';
