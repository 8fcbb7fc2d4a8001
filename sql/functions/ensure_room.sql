-- Room in the log for `incoming` more events, asked for within a caller's transaction. Segments that are made there
-- keep anybody else from making more until it ends, which may be long after; so this leaves it to the workers, who
-- make them in transactions of their own, until three quarters of the reserve are gone.
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
    'Makes room in the log for so many more events: before a COPY or INSERT of your own, in a transaction of its own.';
