-- The reason why the log would refuse an event of a captured row; NULL if it takes it. (In SQL, so that the planner can
-- inline it.)
CREATE OR REPLACE FUNCTION refold.captured_problem(
    user_id text, action text, ts timestamptz, metadata jsonb
) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
SELECT CASE
    WHEN char_length(user_id) NOT BETWEEN 1 AND 255
        THEN 'user: must have 1 to 255 characters, not ' || char_length(user_id) || ' (NULL if unknown)'
    WHEN action IS NULL THEN 'action: is NULL'
    WHEN char_length(action) NOT BETWEEN 1 AND 255
        THEN 'action: must have 1 to 255 characters, not ' || char_length(action)
    WHEN ts IS NULL THEN 'time: is NULL'
    WHEN ts < '0001-01-01 00:00:00+00' OR ts >= '10000-01-01 00:00:00+00'
        THEN 'time: must be between the years 1 and 9999 UTC, not ' || ts
    WHEN jsonb_typeof(metadata) <> 'object'
        THEN 'metadata: must be an object, not ' || refold.json_type_name(metadata)
    WHEN NOT refold.plain_metadata(metadata) AND refold.metadata_problem(metadata) IS NOT NULL
        THEN 'metadata: ' || refold.metadata_problem(metadata)
    ELSE refold.contract_problem(action, 1, metadata)
END
$$;

COMMENT ON FUNCTION refold.captured_problem(text, text, timestamptz, jsonb)
    IS 'Return why the log would refuse an event of a captured row; NULL if it takes it.';
