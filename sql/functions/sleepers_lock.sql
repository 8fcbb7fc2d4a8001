-- The key of the advisory lock that sleeping workers share. Advisory locks are per database already.
CREATE OR REPLACE FUNCTION refold.sleepers_lock() RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT 8246178264892741632 $$;
