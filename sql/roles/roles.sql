-- The roles. They cannot log in: grant one to a login role (`GRANT refold_analyst TO grafana`).
-- Roles belong to the whole cluster, so another database may be making them at this moment.
DO $$
DECLARE
    role text;
    link record;
BEGIN
    FOREACH role IN ARRAY ARRAY[
        'refold_owner', 'refold_producer', 'refold_worker', 'refold_analyst', 'refold_observer', 'refold_inspector',
        'refold_door'
    ] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END IF;
        -- Who installs refold acts as these roles; a superuser may already. Being their creator is not enough
        -- (from PostgreSQL 16 on), and somebody else may have created and granted them.
        IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
            BEGIN
                EXECUTE format('GRANT %I TO CURRENT_USER', role);
            EXCEPTION WHEN insufficient_privilege THEN
                NULL;
            END;
        END IF;
    END LOOP;
    -- Whoever may look into the evidence may look; a worker may do both, and so may its login.
    FOR link IN
        SELECT v.held, v.to_role FROM (
            VALUES ('refold_observer', 'refold_inspector'), ('refold_inspector', 'refold_worker')
        ) AS v (held, to_role)
        WHERE NOT pg_has_role(v.to_role, v.held, 'MEMBER')
    LOOP
        BEGIN
            EXECUTE format('GRANT %I TO %I', link.held, link.to_role);
        EXCEPTION WHEN insufficient_privilege OR unique_violation OR internal_error THEN
            -- Somebody else has made these roles, or does so now: then workers' logins look as refold_worker.
            NULL;
        END;
    END LOOP;
END
$$;
