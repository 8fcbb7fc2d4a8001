-- The oldest log event that a cursor has not applied yet, however many there are.
CREATE OR REPLACE FUNCTION refold.oldest_unread(
    done pg_snapshot, target pg_snapshot, progress_txid xid8, progress_position bigint
) RETURNS TABLE (event_id text, recorded_at timestamptz)
LANGUAGE sql STABLE
SET search_path = refold, pg_catalog, pg_temp
AS $$
SELECT e.event_id, e.recorded_at
FROM refold.first_unread(done, target, progress_txid, progress_position, 1) AS e
ORDER BY e.recorded_at, e.txid, e.position
LIMIT 1
$$;

COMMENT ON FUNCTION refold.oldest_unread(pg_snapshot, pg_snapshot, xid8, bigint)
    IS 'Return the event that has waited longest for a cursor, and since when; no row if no event waits.';
