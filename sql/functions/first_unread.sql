-- The first log events that a cursor has not applied yet, at most `most`, the oldest included. It reads a range of the
-- index for each late transaction, and ranges for the events after `done` and after the progress of the run. Each call
-- plans over the segments that can hold them, with the same plan whatever the statistics are.
--
-- Far behind, these are few of the segments after the cursor. A row of refold.log_ends says of which transactions all
-- events stand before which position: those come first, up to the next row, then to the one after two more, and so on.
CREATE OR REPLACE FUNCTION refold.first_unread(
    done pg_snapshot, target pg_snapshot, progress_txid xid8, progress_position bigint, most bigint
) RETURNS TABLE (txid xid8, "position" bigint, event_id text, recorded_at timestamptz, late boolean)
LANGUAGE plpgsql STABLE
SET search_path = refold, pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
AS $$
DECLARE
    beyond xid8 := greatest(pg_snapshot_xmax(done), progress_txid);
    after bigint := CASE WHEN progress_txid >= pg_snapshot_xmax(done) THEN progress_position ELSE -1 END;
    late_txids xid8[];
    late_after bigint[];
    high bigint;
    ended xid8;
    bound bigint;
    step integer := 0;
    taken bigint;
BEGIN
    SELECT array_agg(l.txid ORDER BY l.txid), array_agg(l.after ORDER BY l.txid) INTO late_txids, late_after
    FROM refold.late_unread(done, target, progress_txid, progress_position) AS l;
    -- Read after the snapshot was taken: no event in the snapshot has a greater position.
    SELECT s.last_value INTO high FROM refold.events_position AS s;
    IF late_txids IS NOT NULL THEN
        RETURN QUERY EXECUTE format(
            'SELECT e.txid, e.position, e.event_id, e.recorded_at, true'
            ' FROM unnest($1, $2) AS l (txid, after)'
            ' CROSS JOIN LATERAL ('
            '     SELECT * FROM refold.events AS e'
            '     WHERE e.txid = l.txid AND e.position > l.after AND e.position BETWEEN %s AND %s'
            '     ORDER BY e.txid, e.position LIMIT $3) AS e'
            ' LIMIT $3', refold.positions_since(late_txids[1]), high)
        USING late_txids, late_after, most;
    END IF;
    LOOP
        SELECT l.ended, l.drawn INTO ended, bound FROM refold.log_ends AS l
        WHERE l.ended > beyond ORDER BY l.ended, l.log_end OFFSET step LIMIT 1;
        RETURN QUERY EXECUTE format(
            'SELECT e.txid, e.position, e.event_id, e.recorded_at, false FROM refold.events AS e'
            ' WHERE (e.txid, e.position) > ($1, $2) AND ($4 IS NULL OR e.txid < $4) AND e.position BETWEEN %s AND %s'
            ' ORDER BY e.txid, e.position LIMIT $3', refold.positions_since(beyond), least(bound, high))
        USING beyond, after, most, ended;
        GET DIAGNOSTICS taken = ROW_COUNT;
        most := most - taken;
        EXIT WHEN ended IS NULL OR most <= 0;
        -- All positions of an earlier id come before.
        beyond := (ended::text::bigint - 1)::text::xid8;
        after := 9223372036854775807;
        step := step * 2 + 1;
    END LOOP;
END
$$;

COMMENT ON FUNCTION refold.first_unread(pg_snapshot, pg_snapshot, xid8, bigint, bigint)
    IS 'Return the first events that a cursor has not applied yet.';
