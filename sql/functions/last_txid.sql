-- The greatest txid in the log; NULL if the log is empty. Idle workers ask often, so it must not touch all segments. The
-- bounds are literals: a plan without them contains all segments, and locks each of them and all their indexes. The search
-- starts after the slice that was passed last, and goes back twice as far each time; usually the first attempt finds it.
CREATE OR REPLACE FUNCTION refold.last_txid() RETURNS xid8
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
AS $$
DECLARE
    since xid8;
    behind bigint;
    last xid8;
    back bigint := 1;
BEGIN
    SELECT s.slice INTO behind FROM refold.sealed_slices AS s ORDER BY s.slice DESC LIMIT 1;
    LOOP
        SELECT s.passed INTO since FROM refold.sealed_slices AS s WHERE s.slice <= behind ORDER BY s.slice DESC LIMIT 1;
        since := coalesce(since, '0');
        -- Without an upper bound: after a restore the sequence may be lower than the last position.
        EXECUTE format(
            'SELECT e.txid FROM refold.events AS e WHERE e.txid >= $1 AND e.position >= %s ORDER BY e.txid DESC LIMIT 1',
            refold.positions_since(since))
        INTO last USING since;
        EXIT WHEN last IS NOT NULL OR since = '0';
        behind := behind - back;
        back := back * 2;
    END LOOP;
    RETURN last;
END
$$;

COMMENT ON FUNCTION refold.last_txid() IS 'Return the greatest txid in the log; NULL if the log is empty.';
