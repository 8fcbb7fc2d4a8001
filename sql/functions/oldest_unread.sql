-- The first log event that a cursor has not applied yet, however many there are: each of the three parts of what
-- is unread is one range of the index, and gives its first row.
CREATE OR REPLACE FUNCTION refold.oldest_unread(
    done pg_snapshot, target pg_snapshot, progress_txid xid8, progress_position bigint
) RETURNS TABLE (event_id text, recorded_at timestamptz)
LANGUAGE sql STABLE
SET search_path = refold, pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
SELECT e.event_id, e.recorded_at
FROM (
    -- Transactions that were open when `done` was taken.
    (SELECT o.txid, o.position, o.event_id, o.recorded_at FROM refold.events AS o
     WHERE o.txid = ANY (ARRAY(SELECT pg_snapshot_xip(oldest_unread.done)))
       AND (oldest_unread.progress_txid IS NULL
            OR NOT pg_visible_in_snapshot(o.txid, oldest_unread.target)
            OR (o.txid, o.position) > (oldest_unread.progress_txid, oldest_unread.progress_position))
     ORDER BY o.txid, o.position LIMIT 1)
    UNION ALL
    -- What comes behind both `done` and the progress of the run.
    (SELECT n.txid, n.position, n.event_id, n.recorded_at FROM refold.events AS n
     WHERE (n.txid, n.position) > (
         greatest(pg_snapshot_xmax(oldest_unread.done), oldest_unread.progress_txid),
         CASE WHEN oldest_unread.progress_txid >= pg_snapshot_xmax(oldest_unread.done)
              THEN oldest_unread.progress_position ELSE -1 END)
     ORDER BY n.txid, n.position LIMIT 1)
    UNION ALL
    -- Transactions that were open when the run's target was taken, and that the progress has passed.
    (SELECT l.txid, l.position, l.event_id, l.recorded_at FROM refold.events AS l
     WHERE l.txid = ANY (ARRAY(SELECT pg_snapshot_xip(oldest_unread.target)))
       AND l.txid >= pg_snapshot_xmax(oldest_unread.done)
       AND (l.txid, l.position) <= (oldest_unread.progress_txid, oldest_unread.progress_position)
     ORDER BY l.txid, l.position LIMIT 1)
) AS e
ORDER BY e.recorded_at, e.txid, e.position
LIMIT 1
$$;

COMMENT ON FUNCTION refold.oldest_unread(pg_snapshot, pg_snapshot, xid8, bigint)
    IS 'The event that has waited longest for a cursor, and since when; no row when nothing waits.';
