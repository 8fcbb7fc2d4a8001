-- Record that a statement failed for lack of room, so that the next finds twice the reserve that this one found. (No more
-- than twice 32 segments, because any producer can draw positions without an event.)
CREATE OR REPLACE FUNCTION refold.record_short_room(reserve bigint) RETURNS void
LANGUAGE sql
SET search_path = refold, pg_catalog, pg_temp
AS $$
    INSERT INTO refold.batches (events, stored)
    SELECT least(record_short_room.reserve, s.segment_size * greatest(32, s.segments_ahead)), false
    FROM refold.settings AS s
$$;

COMMENT ON FUNCTION refold.record_short_room(bigint)
    IS 'Record that a statement failed for lack of room in the log, and the reserve of positions at that time.';
