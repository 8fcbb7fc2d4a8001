-- The roles. They cannot log in: grant one to a login role (`GRANT refold_analyst TO grafana`).
-- Roles belong to the whole cluster, so a migration of another database may create them at the same time.
DO $$
DECLARE
    role text;
    link record;
BEGIN
    FOREACH role IN ARRAY ARRAY[
        'refold_owner', 'refold_producer', 'refold_worker', 'refold_analyst', 'refold_observer', 'refold_inspector',
        'refold_door', 'refold_capture', 'refold_backfill'
    ] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END IF;
        -- The login that installs refold acts as these roles, which a superuser may anyway. From PostgreSQL 16 on it
        -- is not enough to have created them, and another login may have.
        IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
            BEGIN
                EXECUTE format('GRANT %I TO CURRENT_USER', role);
            EXCEPTION WHEN insufficient_privilege THEN
                NULL;
            END;
        END IF;
    END LOOP;
    -- Its members see candidates instead of live builds. Nobody is a member by himself, the login that installs neither.
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'refold_canary') THEN
        BEGIN
            CREATE ROLE refold_canary NOLOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END IF;
    -- An inspector is also an observer, and a worker is both, and so is its login.
    FOR link IN
        SELECT v.held, v.to_role FROM (
            VALUES ('refold_observer', 'refold_inspector'), ('refold_inspector', 'refold_worker')
        ) AS v (held, to_role)
        WHERE NOT pg_has_role(v.to_role, v.held, 'MEMBER')
    LOOP
        BEGIN
            EXECUTE format('GRANT %I TO %I', link.held, link.to_role);
        EXCEPTION WHEN insufficient_privilege OR unique_violation OR internal_error THEN
            -- Another login has created these roles, or does so now: then logins of workers observe as refold_worker.
            NULL;
        END;
    END LOOP;
END
$$;
