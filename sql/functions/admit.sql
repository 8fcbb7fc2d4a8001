-- Store each new event once, and answer for every event. Rejected events are not recorded here: the caller does that,
-- because it knows their source and line (see refold.append).
CREATE OR REPLACE FUNCTION refold.admit(events jsonb)
RETURNS TABLE (ordinal integer, event_id text, answer text, reason text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
AS $$
BEGIN
    IF events IS NULL OR jsonb_typeof(events) <> 'array' THEN
        RAISE EXCEPTION 'refold.append takes a JSON array of events, not %', coalesce(refold.json_type_name(events), 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Wrap a single event: jsonb_build_array(event).';
    END IF;
    RETURN QUERY SELECT * FROM refold.admit_parsed(ARRAY(SELECT p FROM refold.parse_events(events) AS p));
END
$$;

COMMENT ON FUNCTION refold.admit(jsonb)
    IS 'Store the new events of a JSON array, and answer accepted, duplicate, conflict or invalid for each event.';
