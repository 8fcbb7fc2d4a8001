-- The digest of an event as the cold ledger keeps it, in 32 bits. 0 is that of an erased event, under whose id everything is
-- a duplicate; no other event has it.
CREATE OR REPLACE FUNCTION refold.cold_digest(digest bigint) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT CASE WHEN digest = 0 THEN 0 ELSE coalesce(nullif(digest::bit(32)::integer, 0), 1) END $$;

COMMENT ON FUNCTION refold.cold_digest(bigint) IS 'Return the digest of an event in the 32 bits that the cold ledger keeps.';
