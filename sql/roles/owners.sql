-- Give refold's objects to the roles that own them. This is needed after a restore without owners (`pg_restore
-- --no-owner`), after which the login of the restore owns all objects. It acts as the login, and only changes objects whose
-- owner's rights the login has.
DO $$
DECLARE
    one record;
    -- Any role may own objects in `metrics`, and keeps them, unless the schema itself has a wrong owner.
    left_behind CONSTANT boolean := EXISTS (
        SELECT FROM pg_namespace WHERE nspname = 'metrics' AND nspowner <> 'refold_worker'::regrole);
    -- A restore without privileges leaves the schema like this; every view had this privilege.
    bare CONSTANT boolean := EXISTS (
        SELECT FROM pg_namespace WHERE nspname = 'metrics' AND NOT has_schema_privilege('refold_analyst', oid, 'USAGE'));
BEGIN
    FOR one IN
        WITH spaces (oid, name, owner) AS (
            SELECT n.oid, n.nspname,
                   CASE n.nspname WHEN 'refold' THEN 'refold_owner'::regrole
                                  WHEN 'refold_captures' THEN 'refold_capture'::regrole
                                  WHEN 'refold_backfill' THEN 'refold_backfill'::regrole
                                  ELSE 'refold_worker'::regrole END
            FROM pg_namespace AS n
            WHERE n.nspname
                  IN ('refold', 'refold_builds', 'refold_captures', 'refold_backfill', 'metrics', 'metrics_canary')
               -- As an extension it has an owner of its own.
               OR n.nspname = 'pgmq' AND NOT EXISTS (SELECT FROM pg_extension AS e WHERE e.extname = 'pgmq')
        ), found (class, of, owner, old, space, statement) AS (
            -- Schemas first: the new owner of an object needs CREATE on its schema.
            SELECT 0, s.oid::bigint, s.owner, n.nspowner, s.name, format('ALTER SCHEMA %I OWNER TO %s', s.name, s.owner)
            FROM spaces AS s JOIN pg_namespace AS n ON n.oid = s.oid
            UNION ALL
            SELECT 1, s.oid::bigint, s.owner, n.nspowner, s.name, 'GRANT USAGE, CREATE ON SCHEMA metrics TO refold_owner'
            FROM spaces AS s JOIN pg_namespace AS n ON n.oid = s.oid WHERE s.name = 'metrics'
            UNION ALL
            SELECT 2, c.oid::bigint, w.owner, c.relowner, s.name,
                   format('ALTER %s %s OWNER TO %s',
                          CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
                                         WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END, c.oid::regclass, w.owner)
            FROM pg_class AS c JOIN spaces AS s ON s.oid = c.relnamespace
            CROSS JOIN LATERAL (
                -- Migrations of older versions change this view as the owner.
                SELECT CASE WHEN (s.name, c.relname) = ('metrics', 'freshness') AND c.relowner <> s.owner
                            THEN 'refold_owner'::regrole ELSE s.owner END
            ) AS w (owner)
            WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'c')
              -- The sequence of a column follows its table.
              AND NOT (c.relkind = 'S' AND EXISTS (
                  SELECT FROM pg_depend AS d
                  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refobjsubid > 0
                    AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')))
            UNION ALL
            SELECT 3, p.oid::bigint, s.owner, p.proowner, s.name,
                   format('ALTER ROUTINE %s OWNER TO %s', p.oid::regprocedure, s.owner)
            FROM pg_proc AS p JOIN spaces AS s ON s.oid = p.pronamespace
        )
        SELECT f.statement FROM found AS f
        WHERE f.old <> f.owner AND pg_has_role(f.old, 'USAGE')
          AND (f.space <> 'metrics' OR left_behind)
        ORDER BY f.class, f.of
    LOOP
        EXECUTE one.statement;
    END LOOP;
    IF bare THEN
        GRANT USAGE ON SCHEMA metrics TO refold_analyst;
        FOR one IN
            SELECT c.oid::regclass AS view FROM pg_class AS c
            WHERE c.relnamespace = 'metrics'::regnamespace AND c.relkind = 'v' AND c.relowner = 'refold_worker'::regrole
            ORDER BY c.relname
        LOOP
            EXECUTE format('GRANT SELECT ON %s TO refold_analyst', one.view);
        END LOOP;
    END IF;
END
$$;
