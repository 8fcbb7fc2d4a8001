-- The same for one build that is kept, for those who may not read the log: with a cursor of their own making they could count
-- in it whatever they like. (In PL/pgSQL: the view that it reads is made after the functions.)
CREATE OR REPLACE FUNCTION refold.unread_of(build bigint) RETURNS TABLE (events bigint, oldest timestamptz, exact boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT u.events, u.oldest, u.exact
    FROM refold.builds_now AS b
    CROSS JOIN LATERAL refold.unread(b.done, b.target, b.progress_txid, b.progress_position) AS u
    WHERE b.build_id = unread_of.build AND (b.state = 'live' OR (b.state = 'building' AND b.loaded));
END
$$;

COMMENT ON FUNCTION refold.unread_of(bigint)
    IS 'How many log events a kept build has yet to apply, and since when the oldest of them has been there.';
