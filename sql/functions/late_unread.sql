-- Transactions that a cursor has to look up one by one, because they were open when `done` or `target` was taken. Returns
-- those that have ended since, each with the position after which its events are not applied yet.
CREATE OR REPLACE FUNCTION refold.late_unread(
    done pg_snapshot, target pg_snapshot, progress_txid xid8, progress_position bigint
) RETURNS TABLE (txid xid8, after bigint)
LANGUAGE sql STABLE
SET search_path = refold, pg_catalog, pg_temp
AS $$
SELECT x, CASE WHEN pg_visible_in_snapshot(x, target) AND x = progress_txid THEN progress_position ELSE -1 END
FROM pg_snapshot_xip(done) AS x
WHERE pg_visible_in_snapshot(x, pg_current_snapshot())
  -- Which of those the run has passed.
  AND (progress_txid IS NULL OR NOT pg_visible_in_snapshot(x, target) OR x >= progress_txid)
UNION ALL
-- The run went past them while they were open.
SELECT x, -1
FROM pg_snapshot_xip(target) AS x
WHERE x >= pg_snapshot_xmax(done) AND x < progress_txid AND pg_visible_in_snapshot(x, pg_current_snapshot())
$$;

COMMENT ON FUNCTION refold.late_unread(pg_snapshot, pg_snapshot, xid8, bigint)
    IS 'Return late transactions that a cursor has not applied, each with the position up to which it has.';
