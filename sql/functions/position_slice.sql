-- The slice of a position of the log: 16,384 adjacent positions. Any number is in a slice, also one that was written by
-- hand: otherwise the audit that should find it would fail.
CREATE OR REPLACE FUNCTION refold.position_slice("position" bigint) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
SELECT least(greatest("position" >> 14, -2147483648), 2147483647)::integer
$$;
