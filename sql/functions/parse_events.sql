-- Events as they come in, one row each in their order, with the reason why one cannot be stored.
CREATE OR REPLACE FUNCTION refold.parse_events(events jsonb) RETURNS SETOF refold.parsed_event
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
    CASE WHEN v.version BETWEEN 1 AND 32767 AND v.version = trunc(v.version) THEN v.version::integer END,
    CASE
        WHEN jsonb_typeof(e.event) <> 'object' THEN 'an event must be a JSON object, not ' || jsonb_typeof(e.event)
        WHEN unknown.fields IS NOT NULL
            THEN 'unknown field ' || unknown.fields || ': put it into metadata'
        WHEN NOT e.event ? 'id' THEN 'id: missing'
        WHEN jsonb_typeof(e.event -> 'id') <> 'string' THEN 'id: must be a string'
        WHEN char_length(e.event ->> 'id') NOT BETWEEN 1 AND 255 THEN 'id: must have 1 to 255 characters'
        WHEN coalesce(jsonb_typeof(e.event -> 'user_id'), 'null') NOT IN ('null', 'string')
            THEN 'user_id: must be a string or null'
        WHEN char_length(e.event ->> 'user_id') NOT BETWEEN 1 AND 255
            THEN 'user_id: must have 1 to 255 characters (null if unknown)'
        WHEN NOT e.event ? 'action' THEN 'action: missing'
        WHEN jsonb_typeof(e.event -> 'action') <> 'string' THEN 'action: must be a string'
        WHEN char_length(e.event ->> 'action') NOT BETWEEN 1 AND 255 THEN 'action: must have 1 to 255 characters'
        WHEN NOT e.event ? 'ts' THEN 'ts: missing'
        WHEN t.ts IS NULL OR t.ts < '0001-01-01 00:00:00+00' OR t.ts >= '10000-01-01 00:00:00+00'
            THEN 'ts: must be epoch milliseconds or ISO 8601 with an offset, between the years 1 and 9999'
        WHEN jsonb_typeof(e.event -> 'metadata') <> 'object' THEN 'metadata: must be an object'
        WHEN jsonb_typeof(e.event -> 'version') <> 'number'
             OR v.version NOT BETWEEN 1 AND 32767 OR v.version <> trunc(v.version)
            THEN 'version: must be a whole number from 1 to 32767'
    END
FROM jsonb_array_elements(events) WITH ORDINALITY AS e (event, ordinal)
CROSS JOIN LATERAL (SELECT refold.instant(e.event -> 'ts') AS ts) AS t
CROSS JOIN LATERAL (
    SELECT CASE jsonb_typeof(e.event -> 'version') WHEN 'number' THEN (e.event -> 'version')::numeric
                WHEN NULL THEN 1 ELSE CASE WHEN e.event ? 'version' THEN 0 ELSE 1 END END AS version
) AS v
CROSS JOIN LATERAL (
    SELECT string_agg(quote_ident(field), ', ' ORDER BY field) AS fields
    FROM jsonb_object_keys(CASE WHEN jsonb_typeof(e.event) = 'object' THEN e.event ELSE '{}' END) AS field
    WHERE field NOT IN ('id', 'user_id', 'action', 'ts', 'metadata', 'version')
) AS unknown
$$;
