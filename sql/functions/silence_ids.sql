-- Keep only the hashes of some ids in the cold ledger: whatever comes under them from now on is a duplicate. Return how many
-- it knows.
CREATE OR REPLACE FUNCTION refold.silence_ids(ids text[]) RETURNS bigint
LANGUAGE plpgsql
SET search_path = refold, pg_catalog, pg_temp
AS $$
DECLARE
    known bigint;
BEGIN
    LOCK TABLE refold.cold_ids IN SHARE ROW EXCLUSIVE MODE;
    SELECT count(*) INTO known FROM refold.archived_ids(silence_ids.ids);
    UPDATE refold.cold_ids AS c SET digests = n.digests, checksum = refold.cold_checksum(c.ids, n.digests)
    FROM (
        SELECT k.bucket, array_agg(CASE WHEN x.id = ANY (h.ids) THEN 0 ELSE x.digest END ORDER BY x.id) AS digests
        FROM (
            SELECT refold.cold_bucket(i, s.cold_buckets) AS bucket, array_agg(refold.cold_id(i)) AS ids
            FROM refold.settings AS s CROSS JOIN unnest(silence_ids.ids) AS i GROUP BY 1
        ) AS h
        JOIN refold.cold_ids AS k ON k.bucket = h.bucket
        CROSS JOIN LATERAL unnest(k.ids, k.digests) AS x (id, digest)
        GROUP BY k.bucket
    ) AS n
    WHERE c.bucket = n.bucket;
    RETURN known;
END
$$;

COMMENT ON FUNCTION refold.silence_ids(text[])
    IS 'Forget the content of erased events: whatever comes under their ids is a duplicate.';
