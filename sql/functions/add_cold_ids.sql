-- Copy the ids of a range of positions from the ledger into their buckets, and return what is new there. It sorts a bucket at
-- a time: what is in memory is what is added.
CREATE OR REPLACE FUNCTION refold.add_cold_ids(
    lower_position bigint, upper_position bigint, OUT added bigint, OUT sum numeric
)
LANGUAGE sql
SET search_path = refold, pg_catalog, pg_temp
AS $$
WITH known AS (
    SELECT k.event_id, refold.cold_digest(k.digest) AS digest
    FROM refold.event_ids AS k
    WHERE k.position >= add_cold_ids.lower_position AND k.position < add_cold_ids.upper_position
),
entries AS (
    SELECT k.event_id, k.digest FROM known AS k
    UNION ALL
    -- How the ids of a captured row's insert begin: the backfill of a capture asks by that whether it is in the log.
    SELECT DISTINCT b.begins, 0
    FROM (SELECT substring(k.event_id FROM '^capture:[^:]*:[^:]*:insert:') AS begins FROM known AS k
          WHERE starts_with(k.event_id, 'capture:')) AS b
    WHERE b.begins IS NOT NULL
),
coming AS (
    SELECT h.bucket, array_agg(h.id ORDER BY h.id) AS ids, array_agg(h.digest ORDER BY h.id) AS digests
    FROM (
        SELECT refold.cold_bucket(e.event_id, s.cold_buckets) AS bucket, refold.cold_id(e.event_id) AS id, e.digest
        FROM entries AS e CROSS JOIN refold.settings AS s
    ) AS h
    GROUP BY h.bucket
),
merged AS MATERIALIZED (
    SELECT n.bucket, m.ids, m.digests, cardinality(m.ids) - coalesce(cardinality(c.ids), 0) AS added,
           m.sum - coalesce((SELECT pg_catalog.sum(i) FROM unnest(c.ids) AS i), 0) AS sum
    FROM coming AS n
    LEFT JOIN refold.cold_ids AS c ON c.bucket = n.bucket
    CROSS JOIN LATERAL (
        SELECT array_agg(x.id ORDER BY x.id) AS ids, array_agg(x.digest ORDER BY x.id) AS digests,
               pg_catalog.sum(x.id) AS sum
        FROM (
            -- An erased id stays erased; otherwise the ledger is right, which a person may have corrected.
            SELECT DISTINCT ON (b.id) b.id, b.digest
            FROM (
                SELECT *, true AS newer FROM unnest(n.ids, n.digests) AS fresh (id, digest)
                UNION ALL
                SELECT *, false FROM unnest(c.ids, c.digests) AS former (id, digest)
            ) AS b
            ORDER BY b.id, b.digest <> 0, b.newer DESC
        ) AS x
    ) AS m
),
written AS (
    INSERT INTO refold.cold_ids AS c (bucket, ids, digests, checksum)
    SELECT m.bucket, m.ids, m.digests, refold.cold_checksum(m.ids, m.digests) FROM merged AS m ORDER BY m.bucket
    ON CONFLICT (bucket) DO UPDATE
        SET ids = excluded.ids, digests = excluded.digests, checksum = excluded.checksum
)
SELECT coalesce(pg_catalog.sum(m.added), 0)::bigint, coalesce(pg_catalog.sum(m.sum), 0) FROM merged AS m
$$;

COMMENT ON FUNCTION refold.add_cold_ids(bigint, bigint)
    IS 'Copy the ids of a range of positions into the cold ledger, and return how many are new there, and the sum of their hashes.';
