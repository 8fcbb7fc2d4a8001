-- The first position after the last segment. The name of a segment has its first position, so that the catalog's index
-- of names leads to the last segment, however many there are. It reads the catalog itself: a stored number would be wrong
-- as soon as a segment is detached by hand, and every append would read its row.
CREATE OR REPLACE FUNCTION refold.log_end() RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = refold, pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
AS $$
DECLARE
    bound text;
BEGIN
    SELECT pg_get_expr(c.relpartbound, c.oid) INTO bound
    FROM pg_class AS c
    WHERE c.relname > 'events_0' AND c.relname < 'events_:' AND c.relnamespace = 'refold'::regnamespace
      AND c.relkind = 'r' AND c.relispartition
    ORDER BY c.relname DESC
    LIMIT 1;
    RETURN coalesce(substring(bound FROM 'TO [(]''?([0-9]+)''?[)]')::bigint, 1);
END
$$;

COMMENT ON FUNCTION refold.log_end() IS 'Return the first position for which the log has no segment.';
