-- Reserve room in the log for `incoming` more events within a caller's transaction. A transaction that creates segments
-- blocks other sessions from creating more until it ends, which may take long. So the workers create them in short
-- transactions, and this function only does if three quarters of the reserve are used.
CREATE OR REPLACE FUNCTION refold.ensure_room(incoming bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
AS $$
DECLARE
    config refold.settings;
    spare bigint;
BEGIN
    SELECT * INTO config FROM refold.settings;
    IF incoming > config.segment_size * 100 THEN
        RAISE EXCEPTION 'room for % events is more than 100 segments', incoming
            USING ERRCODE = 'program_limit_exceeded', HINT = 'Append in smaller batches.';
    END IF;
    SELECT refold.log_end() - incoming - last_value INTO spare FROM refold.events_position;
    IF spare <= config.segment_size * config.segments_ahead / 4 THEN
        PERFORM refold.ensure_segments(incoming);
    END IF;
END
$$;

COMMENT ON FUNCTION refold.ensure_room(bigint) IS
    'Make room in the log for a number of events. Call it before your own COPY or INSERT, in a separate transaction.';
