-- The first position behind a segment of about so many positions. It is a multiple of a slice's 2^14 positions (see
-- refold.position_slice), so that the checksums of a segment are those of its slices, wherever the segment begins.
-- A segment smaller than a slice cannot have whole slices, and is as wide as asked for.
CREATE OR REPLACE FUNCTION refold.segment_end(lower_position bigint, width bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    -- The first segment begins at position 1: position 0 does not exist.
    SELECT CASE WHEN width < 16384 THEN lower_position + width
                ELSE (lower_position - 1 + width + 16383) >> 14 << 14 END
$$;

COMMENT ON FUNCTION refold.segment_end(bigint, bigint)
    IS 'Return the end of a segment of about so many positions: a multiple of 16,384.';
