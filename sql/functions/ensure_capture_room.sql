-- Room in the log for the events of a captured statement. Looking costs more than a small statement may: so a session
-- remembers up to which position there was room, a tenth of a segment before the end.
CREATE OR REPLACE FUNCTION refold.ensure_capture_room(incoming bigint) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    remembered CONSTANT text := current_setting('refold.room_until', true);
    drawn bigint;
BEGIN
    SELECT last_value INTO drawn FROM refold.events_position;
    -- The setting is the session's, and may be anything.
    IF remembered ~ '^[0-9]{1,18}$' AND drawn + incoming < remembered::bigint THEN
        RETURN;
    END IF;
    PERFORM refold.ensure_room(incoming);
    PERFORM set_config('refold.room_until', (refold.log_end() - s.segment_size / 10)::text, false)
    FROM refold.settings AS s;
END
$$;

COMMENT ON FUNCTION refold.ensure_capture_room(bigint)
    IS 'Make room in the log for the events of a captured statement.';
