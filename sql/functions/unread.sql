-- The number of log events that a cursor has not applied yet. Up to a hundred they are counted. A greater number is an
-- estimate: the positions from the first of them to the log's end, some of which may have no event. The query runs every few
-- seconds, and must not read more the further a metric is behind.
CREATE OR REPLACE FUNCTION refold.unread(
    done pg_snapshot, target pg_snapshot, progress_txid xid8, progress_position bigint
) RETURNS TABLE (events bigint, oldest timestamptz, exact boolean)
LANGUAGE sql STABLE
SET search_path = refold, pg_catalog, pg_temp
AS $$
SELECT CASE WHEN f.found <= 100 THEN f.found
            ELSE greatest(f.found, (SELECT s.last_value FROM refold.events_position AS s) - f.first + 1) END,
       f.oldest,
       f.found <= 100
FROM (
    SELECT count(*) AS found, min(e.recorded_at) AS oldest, min(e.position) FILTER (WHERE NOT e.late) AS first
    FROM refold.first_unread(done, target, progress_txid, progress_position, 101) AS e
) AS f
$$;

COMMENT ON FUNCTION refold.unread(pg_snapshot, pg_snapshot, xid8, bigint)
    IS 'Return the number of log events that a cursor has not applied, the time of the oldest, and whether they were counted.';
