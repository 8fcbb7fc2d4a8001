-- Keep segments ready after the log's end, enough for `incoming` more events.
-- Without `incoming` (in workers) it also learns from statements that have failed for lack of room.
CREATE OR REPLACE FUNCTION refold.ensure_segments(incoming bigint DEFAULT 0) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
AS $$
DECLARE
    config refold.settings;
    drawn bigint;
    needed bigint;
    reserve bigint;
    upper_end bigint;
    former_end bigint;
    found_reserve bigint;
    ended xid8;
    next_end bigint;
    burned bigint;
    width bigint;
    made integer := 0;
    stale boolean := false;
BEGIN
    SELECT * INTO config FROM refold.settings;
    IF incoming = 0 THEN
        PERFORM refold.learn_room();
    END IF;
    SELECT w.reserve INTO reserve FROM refold.room_wanted() AS w;
    SELECT last_value + incoming, CASE WHEN is_called THEN last_value ELSE 0 END INTO needed, drawn
    FROM refold.events_position;
    upper_end := refold.log_end();
    -- Create more only when half of the reserve is used, so that the usual append does nothing here.
    IF upper_end - needed > reserve / 2 THEN
        RETURN 0;
    END IF;
    -- Only one session creates segments at a time. Wait for another only if this call needs the room now.
    IF NOT refold.lock_segments(upper_end - needed <= 0) THEN
        RETURN 0;
    END IF;
    upper_end := refold.log_end();
    former_end := upper_end;
    found_reserve := reserve;
    IF drawn >= upper_end THEN
        -- A drawn position has no segment: the room was too small for a statement of unknown length.
        PERFORM refold.record_short_room(reserve);
        SELECT w.reserve INTO reserve FROM refold.room_wanted() AS w;
        found_reserve := NULL;
    END IF;
    -- Positions can be drawn without an event (a failed INSERT has drawn some), by a producer a million times a second.
    -- So the next segment is as wide as the latest passed segments that stayed empty, together: unused positions make
    -- few tables. (Empty by size: rows in a segment may belong to an open transaction.)
    SELECT sum(passed.width) INTO burned
    FROM (
        SELECT p.width, bool_and(p.bytes * 10 < p.width) OVER (ORDER BY p.upper_position DESC) AS empty
        FROM (
            SELECT s.upper_position, s.upper_position - s.lower_position AS width, pg_relation_size(s.segment) AS bytes
            FROM refold.segments AS s, refold.events_position AS drawn
            WHERE s.upper_position <= drawn.last_value
            ORDER BY s.upper_position DESC LIMIT 13
        ) AS p
    ) AS passed
    WHERE passed.empty;
    width := least(greatest(burned, config.segment_size), config.segment_size << 12);
    WHILE upper_end - needed <= reserve LOOP
        next_end := refold.segment_end(upper_end, width);
        -- Under REPEATABLE READ the snapshot of this transaction may not show an existing segment.
        IF to_regclass(format('refold.%I', format('events_%s', lpad(upper_end::text, 15, '0')))) IS NULL THEN
            PERFORM refold.create_segment(upper_end, next_end);
            made := made + 1;
        ELSE
            stale := true;
        END IF;
        upper_end := next_end;
    END LOOP;
    -- Statements that have begun see no further than the former end (refold.learn_room). And transactions that have ended
    -- draw no more positions (refold.first_unread): the snapshot is taken before the sequence is read.
    -- A stale snapshot does not show the former end, whose row another transaction has added.
    IF made > 0 AND NOT stale AND former_end > 1 THEN
        ended := pg_snapshot_xmin(pg_current_snapshot());
        INSERT INTO refold.log_ends (log_end, reserve, ended, drawn)
        SELECT former_end, found_reserve, ended, s.last_value FROM refold.events_position AS s
        ON CONFLICT (log_end) DO NOTHING;
    END IF;
    RETURN made;
END
$$;

COMMENT ON FUNCTION refold.ensure_segments(bigint)
    IS 'Create log segments ahead of need, and return how many were created.';
