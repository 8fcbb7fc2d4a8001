-- Privileges on what belongs to the worker. Applied as refold_worker: the tables of builds and the views of metrics were
-- perhaps made by a version that did not grant them. Granted is only what lacks, so that no page waits.
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT c.oid::regclass AS relation
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname IN ('refold_builds', 'metrics') AND c.relkind IN ('r', 'v')
          AND c.relowner = 'refold_worker'::regrole AND NOT has_table_privilege('refold_inspector', c.oid, 'SELECT')
          -- Views that analysts made show what their authors granted.
          AND (n.nspname = 'refold_builds' OR c.relname = 'freshness'
               OR EXISTS (SELECT FROM refold.builds AS b WHERE b.projection = c.relname AND b.state = 'live'))
    LOOP
        EXECUTE format('GRANT SELECT ON %s TO refold_inspector', one.relation);
    END LOOP;
    GRANT USAGE ON SCHEMA refold_builds, metrics TO refold_inspector;
END
$$;
