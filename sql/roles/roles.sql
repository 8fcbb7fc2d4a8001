-- The four roles. They cannot log in: grant one to a login role (`GRANT refold_analyst TO grafana`).
-- Roles belong to the whole cluster, so another database may be making them at this moment.
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['refold_owner', 'refold_producer', 'refold_worker', 'refold_analyst'] LOOP
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
END
$$;
