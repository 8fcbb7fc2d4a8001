-- The greatest txid in the log; NULL when it is empty. It is what an idle worker asks, so it must not touch all segments:
-- bounds stand in the statement, for a plan that is made without knowing them holds all segments, and takes a lock on each
-- of them and on each of their indexes. Looked for behind the slice that was passed last, then twice as far back each time:
-- usually the first look finds it.
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
        -- Up to the end: after a restore the sequence may be behind the log.
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

COMMENT ON FUNCTION refold.last_txid() IS 'The greatest txid in the log; NULL when it is empty.';
