-- Make room in the log for the events of a captured statement. Looking costs more than a small statement may: so a session
-- remembers up to which position there was room, a tenth of a segment before the end, and the functions of captures call
-- this one beyond it.
CREATE OR REPLACE FUNCTION refold.ensure_capture_room(incoming bigint) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM refold.ensure_room(incoming);
    PERFORM set_config('refold.room_until', (refold.log_end() - s.segment_size / 10)::text, false)
    FROM refold.settings AS s;
END
$$;

COMMENT ON FUNCTION refold.ensure_capture_room(bigint)
    IS 'Make room in the log for the events of a captured statement.';
