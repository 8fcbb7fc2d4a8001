-- item_counts: merge, because: every aggregate can be merged

-- create
CREATE TABLE refold_builds.item_counts__1 AS
SELECT refold.plain(item) AS item,
       COUNT(*) AS times,
       MAX(refold.plain(place)) AS furthest,
       MIN(refold.plain(ts)) AS first_at
FROM refold_builds.items__1
GROUP BY 1
WITH NO DATA;

-- create
ALTER TABLE refold_builds.item_counts__1 ADD COLUMN before__ bigint;

-- create
CREATE STATISTICS refold_builds.item_counts__1__slice ON ((hash_record_extended(ROW(item), 0) >> 56)::integer) FROM refold_builds.item_counts__1;

-- keys
CREATE UNIQUE INDEX item_counts__1__key ON refold_builds.item_counts__1 (item) NULLS NOT DISTINCT;

-- page
WITH page AS MATERIALIZED (
    SELECT * FROM (
        (SELECT txid, position, ordinal, ts, item, place
         FROM refold_builds.items__1
         WHERE txid = ANY (%(open)s::xid8[]) AND (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot))
           AND (txid, position, ordinal) > (%(after_txid)s::xid8, %(after_position)s::bigint, %(after_ordinal)s::integer)
           AND (txid, position, ordinal) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint, %(upto_ordinal)s::integer)
         ORDER BY txid, position, ordinal LIMIT %(limit)s::bigint)
        UNION ALL
        (SELECT txid, position, ordinal, ts, item, place
         FROM refold_builds.items__1
         WHERE (txid, position, ordinal) > (%(from_txid)s::xid8, %(from_position)s::bigint, %(from_ordinal)s::integer)
           AND (txid, position, ordinal) <= (%(to_txid)s::xid8, %(to_position)s::bigint, %(to_ordinal)s::integer) AND (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot))
         ORDER BY txid, position, ordinal LIMIT %(limit)s::bigint)
    ) AS unread
    ORDER BY txid, position, ordinal LIMIT %(limit)s::bigint
),
upto__ AS MATERIALIZED (
    SELECT txid, position, ordinal FROM page ORDER BY txid DESC, position DESC, ordinal DESC LIMIT 1
),
written AS (
    INSERT INTO refold_builds.item_counts__1 AS kept (item, times, furthest, first_at)
    SELECT refold.plain(item) AS item,
           COUNT(*) AS times,
           MAX(refold.plain(place)) AS furthest,
           MIN(refold.plain(ts)) AS first_at
    FROM page
    GROUP BY 1
    ON CONFLICT (item) DO UPDATE SET
        times = kept.times + excluded.times,
        furthest = greatest(kept.furthest, excluded.furthest),
        first_at = least(kept.first_at, excluded.first_at),
        before__ = hash_record_extended(ROW(kept.item, kept.times, kept.furthest, kept.first_at), 8)
    RETURNING (hash_record_extended(ROW(item), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(item, times, furthest, first_at), 8) AS new__, before__ AS old__
),
checksums AS (
    INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
    SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
    FROM (
        SELECT 0 AS relation, slice__ AS slice, count(*) - count(old__) AS rows, sum(new__) - coalesce(sum(old__), 0) AS hash FROM written GROUP BY slice__
        UNION ALL
        SELECT -1 AS relation, 0 AS slice, (SELECT count(*) FROM page) AS rows, 0 AS hash
    ) AS changes
    GROUP BY relation, slice
)
SELECT (SELECT count(*) FROM page) AS events,
       (SELECT txid::text::bigint FROM upto__) AS txid, (SELECT position FROM upto__), (SELECT ordinal FROM upto__);

-- backlog
WITH upto__ AS MATERIALIZED (
    (SELECT txid, position, ordinal AS ordinal, true AS full_page
     FROM refold_builds.items__1
     WHERE (txid, position, ordinal) > (%(after_txid)s::xid8, %(after_position)s::bigint, %(after_ordinal)s::integer)
       AND (txid, position, ordinal) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint, %(upto_ordinal)s::integer)
     ORDER BY txid, position, ordinal OFFSET %(limit)s::bigint - 1 LIMIT 1)
    UNION ALL
    SELECT %(upto_txid)s::xid8, %(upto_position)s::bigint, %(upto_ordinal)s::integer, false
    ORDER BY full_page DESC LIMIT 1
),
page AS NOT MATERIALIZED (
    SELECT txid, position, ordinal, ts, item, place
    FROM refold_builds.items__1
    WHERE (txid, position, ordinal) > (%(after_txid)s::xid8, %(after_position)s::bigint, %(after_ordinal)s::integer)
      AND (txid, position, ordinal) <= ((SELECT txid FROM upto__), (SELECT position FROM upto__), (SELECT ordinal FROM upto__))
      AND txid <= (SELECT txid FROM upto__)
),
written AS (
    INSERT INTO refold_builds.item_counts__1 AS kept (item, times, furthest, first_at)
    SELECT refold.plain(item) AS item,
           COUNT(*) AS times,
           MAX(refold.plain(place)) AS furthest,
           MIN(refold.plain(ts)) AS first_at
    FROM page
    GROUP BY 1
    ON CONFLICT (item) DO UPDATE SET
        times = kept.times + excluded.times,
        furthest = greatest(kept.furthest, excluded.furthest),
        first_at = least(kept.first_at, excluded.first_at),
        before__ = hash_record_extended(ROW(kept.item, kept.times, kept.furthest, kept.first_at), 8)
    RETURNING (hash_record_extended(ROW(item), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(item, times, furthest, first_at), 8) AS new__, before__ AS old__
),
checksums AS (
    INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
    SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
    FROM (
        SELECT 0 AS relation, slice__ AS slice, count(*) - count(old__) AS rows, sum(new__) - coalesce(sum(old__), 0) AS hash FROM written GROUP BY slice__
        UNION ALL
        SELECT -1 AS relation, 0 AS slice, CASE WHEN (SELECT full_page FROM upto__) THEN %(limit)s::bigint ELSE (SELECT count(*) FROM page) END AS rows, 0 AS hash
    ) AS changes
    GROUP BY relation, slice
)
SELECT CASE WHEN (SELECT full_page FROM upto__) THEN %(limit)s::bigint ELSE (SELECT count(*) FROM page) END AS events,
       (SELECT txid::text::bigint FROM upto__) AS txid, (SELECT position FROM upto__), (SELECT ordinal FROM upto__);

-- load
CREATE TEMPORARY TABLE delta ON COMMIT DROP AS
SELECT refold.plain(item) AS item,
       COUNT(*) AS times,
       MAX(refold.plain(place)) AS furthest,
       MIN(refold.plain(ts)) AS first_at
FROM refold_builds.items__1
WHERE (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
  AND (%(whole)s::boolean OR
       ((txid, position, ordinal) > (%(after_txid)s::xid8, %(after_position)s::bigint, %(after_ordinal)s::integer) AND (txid, position, ordinal) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint, %(upto_ordinal)s::integer)))
GROUP BY 1;

-- load
INSERT INTO refold_builds.item_counts__1 AS kept (item, times, furthest, first_at)
SELECT item, times, furthest, first_at FROM delta WHERE true
ON CONFLICT (item) DO UPDATE SET
    times = kept.times + excluded.times,
    furthest = greatest(kept.furthest, excluded.furthest),
    first_at = least(kept.first_at, excluded.first_at),
    before__ = hash_record_extended(ROW(kept.item, kept.times, kept.furthest, kept.first_at), 8);

-- audit of refold_builds.item_counts__1
WITH expected AS MATERIALIZED (
    SELECT refold.plain(item) AS item,
           COUNT(*) AS times,
           MAX(refold.plain(place)) AS furthest,
           MIN(refold.plain(ts)) AS first_at
    FROM refold_builds.items__1
    WHERE (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
         OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position, ordinal) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint, %(progress_ordinal)s::integer)))
      AND event_id <> ALL (%(dead)s::text[])
    GROUP BY 1
),
actual AS MATERIALIZED (
    SELECT item, times, furthest, first_at FROM refold_builds.item_counts__1 WHERE true
)
SELECT 'expected' AS side, hash_record_extended(ROW(item), 0) AS hash, (hash_record_extended(ROW(item), 0) >> 56)::integer AS slice, jsonb_build_object('item', d__.item) AS key, to_jsonb(d__) AS row
FROM (SELECT item, times, furthest, first_at FROM expected EXCEPT ALL SELECT item, times, furthest, first_at FROM actual) AS d__
UNION ALL
SELECT 'actual' AS side, hash_record_extended(ROW(item), 0) AS hash, (hash_record_extended(ROW(item), 0) >> 56)::integer AS slice, jsonb_build_object('item', d__.item) AS key, to_jsonb(d__) AS row
FROM (SELECT item, times, furthest, first_at FROM actual EXCEPT ALL SELECT item, times, furthest, first_at FROM expected) AS d__;

-- healing of refold_builds.item_counts__1: delete
DELETE FROM refold_builds.item_counts__1 WHERE (true) AND hash_record_extended(ROW(item), 0) IN (SELECT unnest(%(keys)s::bigint[]));

-- healing of refold_builds.item_counts__1: insert
INSERT INTO refold_builds.item_counts__1 (item, times, furthest, first_at)
SELECT refold.plain(item) AS item,
       COUNT(*) AS times,
       MAX(refold.plain(place)) AS furthest,
       MIN(refold.plain(ts)) AS first_at
FROM refold_builds.items__1
WHERE true
  AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position, ordinal) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint, %(progress_ordinal)s::integer)))
  AND event_id <> ALL (%(dead)s::text[]) THEN hash_record_extended(ROW(refold.plain(item)), 0) END IN (SELECT unnest(%(keys)s::bigint[]))
  AND (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position, ordinal) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint, %(progress_ordinal)s::integer)))
  AND event_id <> ALL (%(dead)s::text[])
GROUP BY 1;

-- view
SELECT item, times, furthest, first_at FROM refold_builds.item_counts__1;

-- rows with the events in `arriving`
WITH excluded AS MATERIALIZED (
    SELECT refold.plain(item) AS item,
           COUNT(*) AS times,
           MAX(refold.plain(place)) AS furthest,
           MIN(refold.plain(ts)) AS first_at
    FROM arriving
    GROUP BY 1
)
SELECT excluded.item,
       CASE WHEN kept.there__ THEN kept.times + excluded.times ELSE excluded.times END AS times,
       CASE WHEN kept.there__ THEN greatest(kept.furthest, excluded.furthest) ELSE excluded.furthest END AS furthest,
       CASE WHEN kept.there__ THEN least(kept.first_at, excluded.first_at) ELSE excluded.first_at END AS first_at
FROM excluded
LEFT JOIN (SELECT *, true AS there__ FROM refold_builds.item_counts__1) AS kept
    ON hash_record_extended(ROW(kept.item), 0) = hash_record_extended(ROW(excluded.item), 0) AND kept.item IS NOT DISTINCT FROM excluded.item;
