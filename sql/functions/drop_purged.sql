-- Drop the tables of segments that were purged, and return their names. A table that a session reads stays for the next time.
CREATE OR REPLACE FUNCTION refold.drop_purged() RETURNS text[]
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
SET lock_timeout = '200ms'
AS $$
DECLARE
    found record;
    dropped text[] := '{}';
BEGIN
    FOR found IN
        SELECT c.oid::regclass AS segment
        FROM pg_class AS c
        JOIN refold.archives AS a ON c.relname = format('events_%s', lpad(a.lower_position::text, 15, '0'))
        WHERE c.relnamespace = 'refold'::regnamespace AND c.relkind = 'r' AND NOT c.relispartition AND a.state = 'purged'
        ORDER BY a.lower_position
    LOOP
        BEGIN
            EXECUTE format('DROP TABLE %s', found.segment);
            dropped := dropped || found.segment::text;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;
    RETURN dropped;
END
$$;

COMMENT ON FUNCTION refold.drop_purged() IS 'Drop the tables of purged segments, and return their names.';
