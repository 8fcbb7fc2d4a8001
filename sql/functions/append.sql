-- Append from any language: SELECT * FROM refold.append('[{"id": …, "action": …, "ts": …}]').
CREATE OR REPLACE FUNCTION refold.append(events jsonb, source text DEFAULT 'sql')
RETURNS TABLE (ordinal integer, event_id text, answer text, reason text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    one record;
BEGIN
    FOR one IN SELECT * FROM refold.admit(events) LOOP
        ordinal := one.ordinal; event_id := one.event_id; answer := one.answer; reason := one.reason;
        IF one.answer IN ('conflict', 'invalid') THEN
            PERFORM refold.reject(
                append.source, one.ordinal, one.answer, one.reason, (events -> (one.ordinal - 1))::text);
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;

COMMENT ON FUNCTION refold.append(jsonb, text) IS
    'Append a JSON array of events in the caller''s transaction, and answer accepted, duplicate, conflict or invalid for each.';
