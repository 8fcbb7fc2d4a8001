-- An event, parsed, with the reason if it cannot be stored. The same rules as refold.model.event.source_event.SourceEvent
-- in Python; tests/cases/events.json holds both to them.
CREATE OR REPLACE FUNCTION refold.parse_event(given jsonb, place bigint) RETURNS refold.parsed_event
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog
AS $$
SELECT
    e.ordinal::integer,
    CASE WHEN jsonb_typeof(e.event -> 'id') = 'string' THEN e.event ->> 'id' END COLLATE "C",
    e.event ->> 'user_id',
    e.event ->> 'action',
    t.ts,
    coalesce(e.event -> 'metadata', '{}'),
    CASE WHEN v.version BETWEEN 1 AND 32767 THEN v.version::integer END,
    CASE
        WHEN jsonb_typeof(e.event) <> 'object'
            THEN 'an event must be an object, not ' || refold.json_type_name(e.event)
        WHEN unknown.fields IS NOT NULL
            THEN 'unknown field ' || unknown.fields || ': put it into metadata'
        WHEN NOT e.event ? 'id' THEN 'id: is missing'
        WHEN jsonb_typeof(e.event -> 'id') <> 'string'
            THEN 'id: must be a string, not ' || refold.json_type_name(e.event -> 'id')
        WHEN char_length(e.event ->> 'id') NOT BETWEEN 1 AND 255
            THEN 'id: must have 1 to 255 characters, not ' || char_length(e.event ->> 'id')
        WHEN starts_with(e.event ->> 'id', 'capture:')
            THEN 'id: must not begin with "capture:", which is reserved for events of captured tables'
        WHEN jsonb_typeof(e.event -> 'user_id') NOT IN ('null', 'string')
            THEN 'user_id: must be a string or null, not ' || refold.json_type_name(e.event -> 'user_id')
        WHEN char_length(e.event ->> 'user_id') NOT BETWEEN 1 AND 255
            THEN 'user_id: must have 1 to 255 characters, not ' || char_length(e.event ->> 'user_id')
                 || ' (null if unknown)'
        WHEN NOT e.event ? 'action' THEN 'action: is missing'
        WHEN jsonb_typeof(e.event -> 'action') <> 'string'
            THEN 'action: must be a string, not ' || refold.json_type_name(e.event -> 'action')
        WHEN char_length(e.event ->> 'action') NOT BETWEEN 1 AND 255
            THEN 'action: must have 1 to 255 characters, not ' || char_length(e.event ->> 'action')
        WHEN NOT e.event ? 'ts' THEN 'ts: is missing'
        WHEN t.ts IS NULL OR t.ts < '0001-01-01 00:00:00+00' OR t.ts >= '10000-01-01 00:00:00+00'
            THEN 'ts: must be epoch milliseconds or ISO 8601 with an offset, between the years 1 and 9999 UTC, not '
                 || left((e.event -> 'ts')::text, 50)
        WHEN jsonb_typeof(e.event -> 'metadata') <> 'object'
            THEN 'metadata: must be an object, not ' || refold.json_type_name(e.event -> 'metadata')
        WHEN refold.metadata_problem(e.event -> 'metadata') IS NOT NULL
            THEN 'metadata: ' || refold.metadata_problem(e.event -> 'metadata')
        WHEN v.version IS NULL OR v.version NOT BETWEEN 1 AND 32767
            THEN 'version: must be a whole number from 1 to 32767, not ' || left((e.event -> 'version')::text, 50)
    END
FROM (SELECT given, place) AS e (event, ordinal)
CROSS JOIN LATERAL (SELECT refold.parse_timestamp(e.event -> 'ts') AS ts) AS t
CROSS JOIN LATERAL (
    -- NULL unless it is a whole number. 1e0 is a whole number and 1.0 is not, as in Python.
    SELECT CASE
        WHEN NOT e.event ? 'version' THEN 1
        WHEN jsonb_typeof(e.event -> 'version') = 'number' AND scale((e.event -> 'version')::numeric) = 0
            THEN (e.event -> 'version')::numeric
    END AS version
) AS v
CROSS JOIN LATERAL (
    SELECT string_agg(quote_literal(field), ', ' ORDER BY field) AS fields
    FROM jsonb_object_keys(CASE WHEN jsonb_typeof(e.event) = 'object' THEN e.event ELSE '{}' END) AS field
    WHERE field NOT IN ('id', 'user_id', 'action', 'ts', 'metadata', 'version')
) AS unknown
$$;

COMMENT ON FUNCTION refold.parse_event(jsonb, bigint)
    IS 'Return one event as a row, with the reason if the log refuses it.';
