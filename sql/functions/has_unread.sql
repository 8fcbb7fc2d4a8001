-- Tell an idle worker whether a cursor on the log has events to read. It reads two ranges, as a page does.
CREATE OR REPLACE FUNCTION refold.has_unread(done pg_snapshot, newest xid8) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = refold, pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
DECLARE
    ended xid8[];
    found boolean;
BEGIN
    IF newest >= pg_snapshot_xmax(done) THEN
        RETURN true;
    END IF;
    -- An open transaction has no events that could be read.
    ended := ARRAY(
        SELECT x FROM pg_snapshot_xip(done) AS x WHERE pg_visible_in_snapshot(x, pg_current_snapshot()) ORDER BY x);
    IF ended = '{}' THEN
        RETURN false;
    END IF;
    EXECUTE format(
        'SELECT EXISTS (SELECT FROM refold.events AS e WHERE e.txid = ANY ($1) AND e.position >= %s AND e.position <= %s)',
        refold.positions_since(ended[1]), (SELECT s.last_value FROM refold.events_position AS s))
    INTO found USING ended;
    RETURN found;
END
$$;

COMMENT ON FUNCTION refold.has_unread(pg_snapshot, xid8)
    IS 'Return whether the log holds an event that a cursor has not read; `newest` is its greatest txid (refold.last_txid).';
