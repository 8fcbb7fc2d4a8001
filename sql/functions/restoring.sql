-- Whether this session restores lost events (`SET LOCAL refold.restoring = on`), with a login that may act as the owner.
-- The guards of the log and the ledger check it before they refuse.
CREATE OR REPLACE FUNCTION refold.restoring() RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog
AS $$
SELECT coalesce(current_setting('refold.restoring', true), 'off') = 'on'
       AND pg_has_role(session_user, 'refold_owner', 'MEMBER')
$$;

COMMENT ON FUNCTION refold.restoring()
    IS 'Return whether this session restores lost events: SET LOCAL refold.restoring = on.';
