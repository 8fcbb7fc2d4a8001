-- Parsed events, a row for each in their order, with the reason if an event cannot be stored. Most events are valid at
-- first sight: built-in operators show it, at a tenth of the cost of refold.parse_event, which decides on all others.
-- One regular expression for all times of a call costs a hundredth of one for each, because its automaton is built once.
-- No time has 41 characters, so that none of them is two. Without SET, and STABLE, to be planned with its caller.
CREATE OR REPLACE FUNCTION refold.parse_events(events jsonb) RETURNS SETOF refold.parsed_event
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
SELECT CASE
    WHEN jsonb_typeof(e.event) <> 'object' THEN refold.parse_event(e.event, e.ordinal)
    WHEN e.event - '{id,user_id,action,ts,metadata,version}'::text[] = '{}'
        AND jsonb_typeof(e.id) = 'string' AND char_length(e.id #>> '{}') BETWEEN 1 AND 255
        AND NOT starts_with(e.id #>> '{}', 'capture:')
        AND coalesce(jsonb_typeof(e.user_id) = 'string' AND char_length(e.user_id #>> '{}') BETWEEN 1 AND 255
                     OR e.user_id = 'null', true)
        AND jsonb_typeof(e.action) = 'string' AND char_length(e.action #>> '{}') BETWEEN 1 AND 255
        AND coalesce(jsonb_typeof(e.metadata) = 'object' AND refold.plain_metadata(e.metadata), true)
        AND coalesce(e.version::text = '1', true)
        AND jsonb_typeof(e.ts) = 'string'
        AND (
            SELECT max(octet_length(o.event ->> 'ts')) <= 40 AND string_agg(o.event ->> 'ts', '|') || '|' ~ (
                -- Days that every month has, years in which no offset leaves the range, and no digits to cut off.
                '^([1-8][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])[T ]'
                '([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,6})?(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])[|])*$')
            FROM jsonb_array_elements(parse_events.events) AS o (event)
        )
    THEN ROW(e.ordinal::integer, e.id #>> '{}', e.user_id #>> '{}', e.action #>> '{}', (e.ts #>> '{}')::timestamptz,
             coalesce(e.metadata, '{}'), 1, NULL)::refold.parsed_event
    ELSE refold.parse_event(e.event, e.ordinal)
END
FROM (
    SELECT j.ordinal, j.event, j.event -> 'id' AS id, j.event -> 'user_id' AS user_id, j.event -> 'action' AS action,
           j.event -> 'ts' AS ts, j.event -> 'metadata' AS metadata, j.event -> 'version' AS version
    FROM jsonb_array_elements(parse_events.events) WITH ORDINALITY AS j (event, ordinal)
    -- Each value is taken out once, and not where it is used.
    OFFSET 0
) AS e
$$;
