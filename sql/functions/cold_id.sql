-- The place of an id in the cold ledger: 64 bits of its MD5, and others for the bucket. MD5 stays the same in all versions of
-- PostgreSQL, unlike the server's own hash functions: an id whose text is gone could not be hashed again.
CREATE OR REPLACE FUNCTION refold.cold_id(event_id text) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT ('x' || left(md5(event_id), 16))::bit(64)::bigint $$;

COMMENT ON FUNCTION refold.cold_id(text) IS 'Return the hash under which the cold ledger knows an id.';
