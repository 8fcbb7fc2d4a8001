-- The number of events in the log. Up to `counted` positions (at most five thousand) they are counted. For a longer log
-- the number is an estimate. Slices that were sealed lately have exact counts, and a slice missing between them is empty
-- (after a failed COPY). Earlier slices are assumed to be like these, and every position after the last to be an event.
CREATE OR REPLACE FUNCTION refold.log_size(counted bigint DEFAULT 5000) RETURNS TABLE (events bigint, exact boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
DECLARE
    drawn CONSTANT bigint := (SELECT s.last_value FROM refold.events_position AS s);
BEGIN
    exact := drawn <= least(log_size.counted, 5000);
    IF exact THEN
        EXECUTE format('SELECT count(*) FROM refold.events AS e WHERE e.position <= %s', drawn) INTO events;
    ELSE
        SELECT drawn - s.positions + (s.counted + s.each * s.earlier)::bigint INTO events
        FROM (
            SELECT coalesce(sum(l.events), 0) AS counted, coalesce(avg(l.events), 0) AS each,
                   CASE WHEN count(*) = 256 THEN min(l.slice) ELSE 0 END AS earlier,
                   coalesce((max(l.slice) + 1)::bigint << 14, 0) AS positions
            FROM (SELECT n.slice, n.events FROM refold.sealed_slices AS n WHERE n.sealed_at IS NOT NULL
                  ORDER BY n.slice DESC LIMIT 256) AS l
        ) AS s;
    END IF;
    RETURN NEXT;
END
$$;

COMMENT ON FUNCTION refold.log_size(bigint) IS 'Return the number of events in the log, and whether they were counted.';
