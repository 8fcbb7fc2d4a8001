-- The first position behind the last segment. Segments are named by where they begin, so that the index of the
-- catalog's names leads to the last of them, however many there are. Asked of the catalog itself: a figure kept beside it
-- would be wrong as soon as somebody detaches a segment, and a row that every append reads.
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
    RETURN coalesce(substring(bound FROM 'TO \(''?(\d+)''?\)')::bigint, 1);
END
$$;

COMMENT ON FUNCTION refold.log_end() IS 'The first position for which the log has no segment.';
