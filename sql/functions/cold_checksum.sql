-- The checksum of a bucket of the cold ledger.
CREATE OR REPLACE FUNCTION refold.cold_checksum(ids bigint[], digests integer[]) RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE
AS $$ SELECT md5(array_send(ids) || array_send(digests))::uuid $$;

COMMENT ON FUNCTION refold.cold_checksum(bigint[], integer[]) IS 'Return the checksum of a bucket of the cold ledger.';
