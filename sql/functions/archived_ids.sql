-- Those of some ids that the cold ledger knows, with their digests (refold.cold_digest).
CREATE OR REPLACE FUNCTION refold.archived_ids(ids text[]) RETURNS TABLE (event_id text, digest integer)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
-- A session keeps its plans, maybe from when tables were empty. So one plan serves all calls, and looks up by indexes alone;
-- OFFSET 0 keeps a lookup from being joined in another way.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $$
SELECT h.event_id, c.digests[array_position(c.ids, h.id)]
FROM (
    -- OFFSET 0: otherwise each id of a bucket would be compared with an MD5 that is computed again.
    SELECT i AS event_id, refold.cold_id(i) AS id, refold.cold_bucket(i, s.cold_buckets) AS bucket
    FROM refold.settings AS s CROSS JOIN unnest(archived_ids.ids) AS i
    WHERE s.singleton AND s.cold_buckets IS NOT NULL
    OFFSET 0
) AS h
CROSS JOIN LATERAL (SELECT k.ids, k.digests FROM refold.cold_ids AS k WHERE k.bucket = h.bucket OFFSET 0) AS c
WHERE h.id = ANY (c.ids)
$$;

COMMENT ON FUNCTION refold.archived_ids(text[])
    IS 'Return those of some ids that the cold ledger knows, with their digests; 0: erased, everything is a duplicate.';
