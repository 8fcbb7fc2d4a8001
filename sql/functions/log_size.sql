-- The number of events in the log, without purged ones. Up to `counted` positions (at most five thousand) they are counted. For a longer log
-- the number is an estimate. Slices that were sealed lately have exact counts, and a slice missing between them is empty
-- (after a failed COPY). Earlier slices are assumed to be like these. Every position after the last one is taken for an
-- event, except those that were written by transactions that failed, as far as Postgres' statistics have counted them.
CREATE OR REPLACE FUNCTION refold.log_size(counted bigint DEFAULT 5000) RETURNS TABLE (events bigint, exact boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
DECLARE
    drawn CONSTANT bigint := (SELECT s.last_value FROM refold.events_position AS s);
    sealed bigint;
    segment record;
    failed bigint := 0;
BEGIN
    exact := drawn <= least(log_size.counted, 5000);
    IF exact THEN
        EXECUTE format('SELECT count(*) FROM refold.events AS e WHERE e.position <= %s', drawn) INTO events;
        RETURN NEXT;
        RETURN;
    END IF;
    SELECT (s.counted + s.each * s.earlier)::bigint, s.positions INTO events, sealed
    FROM (
        SELECT coalesce(sum(l.events), 0) AS counted, coalesce(avg(l.events), 0) AS each,
               CASE WHEN count(*) = 256 THEN min(l.slice) ELSE 0 END AS earlier,
               coalesce((max(l.slice) + 1)::bigint << 14, 0) AS positions
        FROM (SELECT n.slice, n.events FROM refold.sealed_slices AS n WHERE n.sealed_at IS NOT NULL
              ORDER BY n.slice DESC LIMIT 256) AS l
    ) AS s;
    -- The newest segments, back to the last sealed slice. The log is append-only: rows that were inserted and are not live
    -- were rolled back. (After a reset of the statistics there are fewer inserted than live ones, or none.)
    FOR segment IN
        SELECT substring(c.relname FROM 8)::bigint AS lower,
               greatest(0, pg_stat_get_tuples_inserted(c.oid) - pg_stat_get_live_tuples(c.oid)) AS failed
        FROM pg_class AS c
        WHERE c.relname > 'events_0' AND c.relname <= 'events_' || lpad(drawn::text, 15, '0')
          AND c.relnamespace = 'refold'::regnamespace AND c.relkind = 'r' AND c.relispartition
        ORDER BY c.relname DESC LIMIT 64
    LOOP
        IF segment.lower >= sealed THEN
            failed := failed + segment.failed;
            CONTINUE;
        END IF;
        -- In part of it the events are counted already. A slice may begin before the segment: a share of it counts.
        failed := failed + greatest(0, segment.failed - (sealed - segment.lower) + (
            SELECT coalesce(sum(n.events * (((n.slice + 1)::bigint << 14) - greatest(n.slice::bigint << 14, segment.lower))
                                / 16384), 0)::bigint
            FROM refold.sealed_slices AS n
            WHERE n.slice >= segment.lower >> 14 AND n.slice < sealed >> 14));
        EXIT;
    END LOOP;
    events := greatest(0, events + greatest(0, drawn - sealed - failed) - (
        SELECT coalesce(sum(a.events), 0) FROM refold.archives AS a WHERE a.state = 'purged'));
    RETURN NEXT;
END
$$;

COMMENT ON FUNCTION refold.log_size(bigint) IS 'Return the number of events in the log, and whether they were counted.';
