-- The reason why the log refuses metadata; NULL if it accepts it. The same limits as refold.model.event.jsonb_limits in Python;
-- tests/cases/events.json holds both to them.
CREATE OR REPLACE FUNCTION refold.metadata_problem(metadata jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
SET search_path = pg_catalog
AS $$
DECLARE
    written text;
BEGIN
    IF refold.plain_metadata(metadata) THEN
        RETURN NULL;
    END IF;
    written := metadata::text;
    IF octet_length(written) > 1048576 THEN
        RETURN 'is larger than 1048576 bytes: keep large content elsewhere and refer to it';
    END IF;
    IF jsonb_path_exists(metadata, 'strict $.**{100} ? (@.type() == "object" || @.type() == "array")') THEN
        RETURN 'is nested more than 100 levels deep: flatten it';
    END IF;
    -- A number of more than 2000 digits has 250 in a row on one side of its point, which is rare otherwise.
    IF written ~ '[0-9]{250}' AND EXISTS (
        SELECT FROM jsonb_path_query(metadata, 'strict $.** ? (@.type() == "number")') AS number
        WHERE char_length(translate(number::text, '-.', '')) > 2000
    ) THEN
        RETURN 'holds a number of more than 2000 digits: send it as a string';
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION refold.metadata_problem(jsonb)
    IS 'Return why the log refuses this metadata (size, depth, digits of a number); NULL if it accepts it.';
