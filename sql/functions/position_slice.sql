-- The slice of a position of the log: 16,384 neighbours. Any number that somebody may have put into a table is in
-- some slice; else the audit that would find it fails.
CREATE OR REPLACE FUNCTION refold.position_slice("position" bigint) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
SELECT least(greatest("position" >> 14, -2147483648), 2147483647)::integer
$$;
