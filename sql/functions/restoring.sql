-- Whether somebody who may act as the owner has said, in this session, that he puts back what the log has lost
-- (`SET LOCAL refold.restoring = on`). The guards of the log and the ledger ask when they are about to refuse.
CREATE OR REPLACE FUNCTION refold.restoring() RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog
AS $$
SELECT coalesce(current_setting('refold.restoring', true), 'off') = 'on'
       AND pg_has_role(session_user, 'refold_owner', 'MEMBER')
$$;

COMMENT ON FUNCTION refold.restoring()
    IS 'Whether this session puts back events that the log has lost: SET LOCAL refold.restoring = on.';
