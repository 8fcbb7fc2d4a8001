-- refold.unread for a kept build, for roles that may not read the log: with a cursor of their choice they could count any
-- events in it. (In PL/pgSQL, because the view that it reads is created after the functions.)
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
    IS 'Return the number of log events that a kept build has not applied, and the time of the oldest.';
