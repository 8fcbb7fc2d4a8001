-- Every event that reaches the log passes the ledger, whichever door it came through: a statement that brings
-- an id a second time fails as a whole. Ids go in sorted, so that two batches cannot wait for each other.
CREATE OR REPLACE FUNCTION refold.let_in() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_RELID <> 'refold.events'::regclass THEN
        RAISE EXCEPTION 'refold.let_in is the trigger of refold.events' USING ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO refold.event_ids (event_id, digest)
    SELECT n.event_id, refold.digest(n.user_id, n.action, n.ts, n.metadata, n.version)
    FROM arrived AS n
    ORDER BY n.event_id;
    RETURN NULL;
END
$$;
