-- Whether a cursor on the log has anything to read: what an idle worker asks. Two ranges, as in the page.
CREATE OR REPLACE FUNCTION refold.has_unread(done pg_snapshot) RETURNS boolean
LANGUAGE sql STABLE
AS $$
SELECT EXISTS (SELECT FROM refold.events WHERE txid >= pg_snapshot_xmax(done))
    OR EXISTS (SELECT FROM refold.events WHERE txid = ANY (ARRAY(SELECT pg_snapshot_xip(done))))
$$;
