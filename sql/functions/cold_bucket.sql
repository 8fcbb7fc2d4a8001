-- The bucket of an id in the cold ledger, by bits of its MD5 that refold.cold_id leaves out.
CREATE OR REPLACE FUNCTION refold.cold_bucket(event_id text, buckets integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT ('x' || substr(md5(event_id), 17, 8))::bit(32)::integer & (buckets - 1) $$;

COMMENT ON FUNCTION refold.cold_bucket(text, integer) IS 'Return the bucket of an id among a number of buckets, a power of two.';
