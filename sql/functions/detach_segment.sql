-- Take the lowest segment out of the log, in the transaction that records it as purged. Its table stays, until
-- refold.drop_purged removes it. Workers may let a segment go only if everything that is left says that it may: the
-- manifest has its file, and all builds on the log have its events in their bases.
CREATE OR REPLACE FUNCTION refold.detach_segment(lower_position bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
AS $$
DECLARE
    own refold.segments;
    held text;
BEGIN
    SELECT * INTO own FROM refold.segments AS s ORDER BY s.lower_position LIMIT 1;
    IF own.lower_position IS DISTINCT FROM detach_segment.lower_position THEN
        RAISE EXCEPTION 'the segment at position % is not the lowest of the log', detach_segment.lower_position
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF refold.log_floor() <> own.upper_position OR NOT EXISTS (
        SELECT FROM refold.archives AS a
        WHERE a.lower_position = own.lower_position AND a.upper_position = own.upper_position AND a.state = 'purged'
    ) THEN
        RAISE EXCEPTION '% is not recorded as purged', own.segment USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    SELECT min(b.table_name) INTO held FROM refold.builds AS b
    WHERE b.upstream_id IS NULL AND b.state <> 'dropped' AND b.floor <> own.upper_position;
    IF held IS NOT NULL THEN
        RAISE EXCEPTION '% still reads %', held, own.segment USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM refold.chill(own.lower_position, own.upper_position);
    EXECUTE format('ALTER TABLE refold.events DETACH PARTITION %s', own.segment);
END
$$;

COMMENT ON FUNCTION refold.detach_segment(bigint) IS 'Take the lowest segment out of the log, if it is recorded as purged.';
