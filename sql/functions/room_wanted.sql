-- The number of positions to keep ready after the log's end. A statement only sees the segments that exist when it starts,
-- so a producer's own COPY or INSERT needs room for all its events beforehand. The reserve is twice the largest recent
-- statement (it is refilled when half is used), plus a minute at the present rate.
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
    -- Slices of 2^14 positions are sealed about a minute after they are full: see refold.position_slice.
    SELECT count(*) * 16384 / 120.0 INTO rate
    FROM refold.sealed_slices AS s WHERE s.sealed_at >= clock_timestamp() - interval '2 minutes';
    SELECT greatest(c.segment_size * c.segments_ahead, 2 * largest + CASE WHEN largest > 0 THEN c.segment_size ELSE 0 END)
           + (rate * 60)::bigint
    INTO reserve FROM refold.settings AS c;
END
$$;

COMMENT ON FUNCTION refold.room_wanted() IS
    'Return the positions to keep ready, the largest statement of the last seven days, and the events a second.';
