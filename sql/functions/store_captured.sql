-- Store events of captured rows, which are valid.
CREATE OR REPLACE FUNCTION refold.store_captured(made refold.parsed_event[]) RETURNS void
LANGUAGE sql
AS $$
INSERT INTO refold.events (event_id, user_id, action, ts, metadata)
SELECT m.event_id, m.user_id, m.action, m.ts, m.metadata FROM unnest(made) AS m
$$;

COMMENT ON FUNCTION refold.store_captured(refold.parsed_event[]) IS 'Store the events of captured rows.';
