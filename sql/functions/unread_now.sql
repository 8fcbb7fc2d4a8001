-- refold.unread for every build that is kept up to date, for roles that may not read the log: with a cursor of their choice
-- they could count any events in it. (In PL/pgSQL, because the view that it reads is created after the functions.)
--
-- Most cursors stand between the same two events, and the log is read once for all of these. In the order of cursors a
-- reading also holds for the next one if the first event that it found comes after that cursor too.
CREATE OR REPLACE FUNCTION refold.unread_now()
RETURNS TABLE (build_id bigint, events bigint, oldest timestamptz, exact boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
AS $$
DECLARE
    build record;
    first_txid xid8;
    known boolean := false;
    newest bigint;
    shared record;
BEGIN
    SELECT s.last_value INTO newest FROM refold.events_position AS s;
    FOR build IN
        SELECT b.build_id, b.done, b.target, b.progress_txid, b.progress_position, pg_snapshot_xmax(b.done) AS beyond,
               -- Nothing but the events after `done` is unread.
               b.progress_txid IS NULL AND NOT EXISTS (SELECT FROM refold.late_unread(b.done, b.target, NULL, NULL)) AS plain
        FROM refold.builds_now AS b
        WHERE b.state = 'live' OR (b.state = 'building' AND b.loaded)
        ORDER BY pg_snapshot_xmax(b.done)
    LOOP
        build_id := build.build_id;
        IF NOT build.plain THEN
            SELECT u.events, u.oldest, u.exact INTO events, oldest, exact
            FROM refold.unread(build.done, build.target, build.progress_txid, build.progress_position) AS u;
            RETURN NEXT;
            CONTINUE;
        END IF;
        IF NOT known OR first_txid < build.beyond THEN
            SELECT count(*) AS taken, min(e.recorded_at) AS oldest, min(e.position) AS first,
                   min(e.txid::text::bigint)::text::xid8 AS first_txid
            INTO shared
            FROM refold.first_unread(build.done, NULL, NULL, NULL, 101) AS e;
            first_txid := shared.first_txid;
            known := true;
        END IF;
        exact := shared.taken <= 100;
        events := CASE WHEN exact THEN shared.taken ELSE greatest(shared.taken, newest - shared.first + 1) END;
        oldest := shared.oldest;
        RETURN NEXT;
    END LOOP;
END
$$;

COMMENT ON FUNCTION refold.unread_now()
    IS 'Return for each kept build the number of log events that it has not applied, and the time of the oldest.';
