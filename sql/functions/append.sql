-- Append from any language: SELECT * FROM refold.append('[{"id": …, "action": …, "ts": …}]').
CREATE OR REPLACE FUNCTION refold.append(events jsonb, source text DEFAULT 'sql')
RETURNS TABLE (ordinal integer, event_id text, answer text, reason text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT a.ordinal, a.event_id, a.answer,
           CASE WHEN a.answer IN ('conflict', 'invalid') THEN (
               SELECT a.reason
               FROM refold.reject(append.source, a.ordinal, a.answer, a.reason, (events -> (a.ordinal - 1))::text)
           ) END
    FROM refold.admit(events) AS a;
END
$$;

COMMENT ON FUNCTION refold.append(jsonb, text) IS
    'Append a JSON array of events in the caller''s transaction, and answer accepted, duplicate, conflict or invalid for each.';
