-- How many positions are to be ready ahead of the log's end. A statement sees the segments that are there when it begins,
-- and no later ones: a COPY or INSERT of a producer's own needs room for all of it beforehand. So what the largest of them
-- lately has taken is there twice (half of it is left before anybody makes more), and a minute at the present rate.
CREATE OR REPLACE FUNCTION refold.room_wanted(OUT reserve bigint, OUT largest bigint, OUT rate double precision)
LANGUAGE plpgsql STABLE
SET search_path = refold, pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
AS $$
BEGIN
    SELECT coalesce(max(b.events), 0) INTO largest
    FROM refold.batches AS b WHERE b.at >= clock_timestamp() - interval '7 days';
    -- Slices are sealed about a minute after they were filled: 2^14 positions each, see refold.position_slice.
    SELECT count(*) * 16384 / 120.0 INTO rate
    FROM refold.sealed_slices AS s WHERE s.sealed_at >= clock_timestamp() - interval '2 minutes';
    SELECT greatest(c.segment_size * c.segments_ahead, 2 * largest + CASE WHEN largest > 0 THEN c.segment_size ELSE 0 END)
           + (rate * 60)::bigint
    INTO reserve FROM refold.settings AS c;
END
$$;

COMMENT ON FUNCTION refold.room_wanted() IS
    'Positions to keep ready; the largest statement of the last seven days, and events a second, by which that is found.';
