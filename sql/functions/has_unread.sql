-- Whether a cursor on the log has anything to read: what an idle worker asks. Two ranges, as in the page.
-- PL/pgSQL keeps the plan; an SQL function would plan over all segments at every poll.
CREATE OR REPLACE FUNCTION refold.has_unread(done pg_snapshot) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN EXISTS (SELECT FROM refold.events WHERE txid >= pg_snapshot_xmax(done))
        OR EXISTS (SELECT FROM refold.events WHERE txid = ANY (ARRAY(SELECT pg_snapshot_xip(done))));
END
$$;
