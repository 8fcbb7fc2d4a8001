-- Find the statements that failed for lack of room although segments were created meanwhile: a statement sees only the
-- segments that exist when it begins. Such a statement leaves no row, only a trace: it has drawn all positions up to the
-- log's end at its beginning, and one more, and no event has them. (Other aborted transactions leave unused positions
-- too. So a quarter of the positions before the end has to be unused, and one of the first after it.)
--
-- An end is judged when no open transaction can have a position near it: nobody else writes to the log, or everybody who
-- wrote when the sequence had passed the end is done.
CREATE OR REPLACE FUNCTION refold.learn_room() RETURNS void
LANGUAGE plpgsql
SET search_path = refold, pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    newest CONSTANT bigint := (SELECT s.last_value FROM refold.events_position AS s WHERE s.is_called);
    former refold.log_ends;
    before bigint;
    after bigint;
    stored_before bigint;
    stored_after bigint;
BEGIN
    -- Under REPEATABLE READ a look would not see who has committed meanwhile.
    IF current_setting('transaction_isolation') <> 'read committed'
       OR NOT EXISTS (SELECT FROM refold.log_ends AS l WHERE l.reserve IS NOT NULL AND l.log_end <= newest) THEN
        RETURN;
    END IF;
    FOR former IN
        SELECT * FROM refold.log_ends AS l
        WHERE l.reserve IS NOT NULL AND l.log_end <= newest
        ORDER BY l.log_end FOR UPDATE SKIP LOCKED
    LOOP
        IF former.passed IS NULL THEN
            -- Events get a transaction id before their position: whoever has a position up to `newest` is older.
            UPDATE refold.log_ends AS l SET passed = pg_snapshot_xmax(pg_current_snapshot())
            WHERE l.log_end = former.log_end RETURNING * INTO former;
        END IF;
        CONTINUE WHEN pg_snapshot_xmin(pg_current_snapshot()) < former.passed
            AND EXISTS (
                SELECT FROM pg_locks AS k
                WHERE k.locktype = 'relation' AND k.relation = 'refold.events'::regclass AND k.mode = 'RowExclusiveLock'
                  AND k.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
                  AND k.pid IS DISTINCT FROM pg_backend_pid()
            );
        before := least(former.log_end - 1, former.reserve / 2, 100000);
        after := least(newest + 1 - former.log_end, 1024);
        EXECUTE format(
            'SELECT count(*) FILTER (WHERE e.position < %2$s), count(*) FILTER (WHERE e.position >= %2$s)'
            ' FROM refold.events AS e WHERE e.position >= %1$s AND e.position < %3$s',
            former.log_end - before, former.log_end, former.log_end + after)
        INTO stored_before, stored_after;
        IF stored_before * 4 <= before * 3 AND stored_after < after THEN
            PERFORM refold.record_short_room(former.reserve);
        END IF;
        UPDATE refold.log_ends AS l SET reserve = NULL WHERE l.log_end = former.log_end;
    END LOOP;
END
$$;

COMMENT ON FUNCTION refold.learn_room()
    IS 'Record statements that failed for lack of room while other sessions created segments.';
