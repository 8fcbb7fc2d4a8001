-- The number of events that the log has stored since an instant. Up to five thousand they are counted, from the end of
-- the log backwards. A greater number is an estimate, from the first slice that was sealed since then. Slices that were
-- sealed lately have exact counts (a slice missing between them is empty), and others are assumed to be like them.
CREATE OR REPLACE FUNCTION refold.recorded_since(since timestamptz) RETURNS TABLE (events bigint, exact boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
AS $$
DECLARE
    most CONSTANT bigint := 5000;
    high bigint;
    mark xid8;
    seen bigint;
    first_slice bigint;
BEGIN
    SELECT s.last_value INTO high FROM refold.events_position AS s;
    -- The range of the newest events, and a few positions more, because not every position has an event.
    SELECT s.passed INTO mark FROM refold.sealed_slices AS s WHERE s.slice < (high - 4 * most) >> 14 ORDER BY s.slice DESC LIMIT 1;
    mark := coalesce(mark, '0');
    EXECUTE format(
        'SELECT count(*) FILTER (WHERE n.recorded_at >= $2), count(*) FROM ('
        '    SELECT e.recorded_at FROM refold.events AS e WHERE e.txid >= $1 AND e.position BETWEEN %s AND %s'
        '    ORDER BY e.txid DESC, e.position DESC LIMIT $3) AS n', refold.positions_since(mark), high)
    INTO events, seen USING mark, since, most + 1;
    exact := events < seen OR (mark = '0' AND seen <= most AND refold.log_floor() <= 1);
    IF NOT exact THEN
        SELECT s.slice INTO first_slice FROM refold.sealed_slices AS s
        WHERE s.sealed_at >= since ORDER BY s.sealed_at, s.slice LIMIT 1;
        SELECT greatest(recorded_since.events, (
            coalesce(sum(l.events) FILTER (WHERE l.slice >= first_slice), 0)
            + coalesce(avg(l.events), 0) * CASE WHEN count(*) = 256 THEN greatest(0, min(l.slice) - first_slice) ELSE 0 END
            + coalesce(avg(l.events) / 16384, 1) * (high - (coalesce(max(l.slice) + 1, 0)::bigint << 14)))::bigint)
        INTO events
        FROM (SELECT s.slice, s.events FROM refold.sealed_slices AS s WHERE s.sealed_at IS NOT NULL
              ORDER BY s.slice DESC LIMIT 256) AS l;
    END IF;
    RETURN NEXT;
END
$$;

COMMENT ON FUNCTION refold.recorded_since(timestamptz)
    IS 'Return the number of events that the log has stored since an instant, and whether they were counted.';
