-- The greatest txid in the log, if it is not below `since`; else NULL. It is what an idle worker asks, so it must not
-- touch all segments: their bounds stand in the statement, for a plan that is made without knowing them holds all
-- segments, and takes a lock on each of them and on each of their indexes.
CREATE OR REPLACE FUNCTION refold.newest_txid(since xid8) RETURNS xid8
LANGUAGE plpgsql STABLE STRICT
SET search_path = refold, pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
AS $$
DECLARE
    newest xid8;
BEGIN
    EXECUTE format(
        'SELECT e.txid FROM refold.events AS e WHERE e.txid >= $1 AND e.position >= %s AND e.position <= %s'
        ' ORDER BY e.txid DESC LIMIT 1',
        refold.positions_since(since),
        -- Read after the snapshot was taken: nothing that it shows has a greater position.
        (SELECT s.last_value FROM refold.events_position AS s))
    INTO newest USING since;
    RETURN newest;
END
$$;

COMMENT ON FUNCTION refold.newest_txid(xid8) IS 'The greatest txid in the log, if it is not below the given one.';
