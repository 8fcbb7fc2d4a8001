-- The log events that a cursor has not applied yet: in two ranges, as the page reads them, so that the index
-- serves both however long the log is.
CREATE OR REPLACE FUNCTION refold.unread(
    done pg_snapshot, target pg_snapshot, progress_txid xid8, progress_position bigint
) RETURNS TABLE (events bigint, oldest timestamptz)
LANGUAGE sql STABLE
SET search_path = refold, pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
SELECT count(*), min(e.recorded_at)
FROM (
    SELECT w.txid, w.position, w.recorded_at FROM refold.events AS w
    WHERE w.txid = ANY (ARRAY(SELECT pg_snapshot_xip(unread.done)))
    UNION ALL
    SELECT n.txid, n.position, n.recorded_at FROM refold.events AS n
    WHERE n.txid >= pg_snapshot_xmax(unread.done)
) AS e
WHERE unread.progress_txid IS NULL
   OR NOT pg_visible_in_snapshot(e.txid, unread.target)
   OR (e.txid, e.position) > (unread.progress_txid, unread.progress_position)
$$;

COMMENT ON FUNCTION refold.unread(pg_snapshot, pg_snapshot, xid8, bigint)
    IS 'How many log events a cursor has yet to apply, and since when the oldest of them has been there.';
