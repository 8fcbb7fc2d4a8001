-- visitors: members, because: count(DISTINCT …) needs the set of values that it has counted

-- create
CREATE TABLE refold_builds.visitors__1 AS
SELECT metadata ->> 'place' AS place,
       COUNT(*) AS events,
       count(DISTINCT user_id) AS users,
       count(DISTINCT refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) AS numbers,
       count(DISTINCT user_id) FILTER (WHERE action = 'buy') AS buyers,
       SUM(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__sum,
       COUNT(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__count,
       BOOL_OR(action = 'buy') AS sold
FROM refold.events
WHERE (action <> 'noise')
GROUP BY 1
WITH NO DATA;

-- create
CREATE TABLE refold_builds.visitors__1__m1 AS
SELECT DISTINCT metadata ->> 'place' AS place, user_id AS member__
FROM refold.events
WHERE CASE WHEN (action <> 'noise') THEN (user_id) IS NOT NULL END
WITH NO DATA;

-- create
CREATE TABLE refold_builds.visitors__1__m2 AS
SELECT DISTINCT metadata ->> 'place' AS place, refold.plain(CAST((metadata ->> 'n') AS DECIMAL)) AS member__
FROM refold.events
WHERE CASE WHEN (action <> 'noise') THEN (refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) IS NOT NULL END
WITH NO DATA;

-- create
CREATE TABLE refold_builds.visitors__1__m3 AS
SELECT DISTINCT metadata ->> 'place' AS place, user_id AS member__
FROM refold.events
WHERE CASE WHEN (action <> 'noise') THEN CASE WHEN (action = 'buy') THEN (user_id) IS NOT NULL END END
WITH NO DATA;

-- create
ALTER TABLE refold_builds.visitors__1 ADD COLUMN before__ bigint;

-- create
CREATE STATISTICS refold_builds.visitors__1__slice ON ((hash_record_extended(ROW(place), 0) >> 56)::integer) FROM refold_builds.visitors__1;

-- keys
CREATE UNIQUE INDEX visitors__1__key ON refold_builds.visitors__1 (place) NULLS NOT DISTINCT;

-- indexes
CREATE UNIQUE INDEX IF NOT EXISTS visitors__1__m1_key ON refold_builds.visitors__1__m1 (place, member__) NULLS NOT DISTINCT;

-- indexes
CREATE UNIQUE INDEX IF NOT EXISTS visitors__1__m2_key ON refold_builds.visitors__1__m2 (place, member__) NULLS NOT DISTINCT;

-- indexes
CREATE UNIQUE INDEX IF NOT EXISTS visitors__1__m3_key ON refold_builds.visitors__1__m3 (place, member__) NULLS NOT DISTINCT;

-- page
WITH page AS MATERIALIZED (
    SELECT * FROM (
        (SELECT txid, position, 0 AS ordinal, user_id, action, metadata
         FROM refold.events
         WHERE txid = ANY (%(open)s::xid8[]) AND (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot))
           AND (txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint)
           AND (txid, position) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint)
         ORDER BY txid, position LIMIT %(limit)s::bigint)
        UNION ALL
        (SELECT txid, position, 0 AS ordinal, user_id, action, metadata
         FROM refold.events
         WHERE (txid, position) > (%(from_txid)s::xid8, %(from_position)s::bigint)
           AND (txid, position) <= (%(to_txid)s::xid8, %(to_position)s::bigint) AND (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot))
         ORDER BY txid, position LIMIT %(limit)s::bigint)
    ) AS unread
    ORDER BY txid, position LIMIT %(limit)s::bigint
),
upto__ AS MATERIALIZED (
    SELECT txid, position, ordinal FROM page ORDER BY txid DESC, position DESC LIMIT 1
),
new_1 AS (
    INSERT INTO refold_builds.visitors__1__m1 (place, member__)
    SELECT DISTINCT metadata ->> 'place' AS place, user_id AS member__
    FROM page
    WHERE CASE WHEN (action <> 'noise') THEN (user_id) IS NOT NULL END
    ON CONFLICT DO NOTHING
    RETURNING (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(place, member__), 8) AS new__, place
),
new_2 AS (
    INSERT INTO refold_builds.visitors__1__m2 (place, member__)
    SELECT DISTINCT metadata ->> 'place' AS place, refold.plain(CAST((metadata ->> 'n') AS DECIMAL)) AS member__
    FROM page
    WHERE CASE WHEN (action <> 'noise') THEN (refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) IS NOT NULL END
    ON CONFLICT DO NOTHING
    RETURNING (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(place, member__), 8) AS new__, place
),
new_3 AS (
    INSERT INTO refold_builds.visitors__1__m3 (place, member__)
    SELECT DISTINCT metadata ->> 'place' AS place, user_id AS member__
    FROM page
    WHERE CASE WHEN (action <> 'noise') THEN CASE WHEN (action = 'buy') THEN (user_id) IS NOT NULL END END
    ON CONFLICT DO NOTHING
    RETURNING (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(place, member__), 8) AS new__, place
),
delta AS (
    SELECT metadata ->> 'place' AS place,
           COUNT(*) AS events,
           SUM(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__sum,
           COUNT(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__count,
           BOOL_OR(action = 'buy') AS sold
    FROM page
    WHERE (action <> 'noise')
    GROUP BY 1
),
written AS (
    INSERT INTO refold_builds.visitors__1 AS kept (place, events, users, numbers, buyers, mean__sum, mean__count, sold)
    SELECT place, sum(events) AS events, sum(users) AS users, sum(numbers) AS numbers, sum(buyers) AS buyers, sum(mean__sum) AS mean__sum, sum(mean__count) AS mean__count, bool_or(sold) AS sold
    FROM (
        SELECT place, events, 0 AS users, 0 AS numbers, 0 AS buyers, mean__sum, mean__count, sold FROM delta
        UNION ALL
        SELECT place, 0 AS events, count(*) AS users, 0 AS numbers, 0 AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM new_1 GROUP BY place
        UNION ALL
        SELECT place, 0 AS events, 0 AS users, count(*) AS numbers, 0 AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM new_2 GROUP BY place
        UNION ALL
        SELECT place, 0 AS events, 0 AS users, 0 AS numbers, count(*) AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM new_3 GROUP BY place
    ) AS arrived
    GROUP BY 1
    ON CONFLICT (place) DO UPDATE SET
        events = kept.events + excluded.events,
        users = kept.users + excluded.users,
        numbers = kept.numbers + excluded.numbers,
        buyers = kept.buyers + excluded.buyers,
        mean__sum = coalesce(kept.mean__sum + excluded.mean__sum, kept.mean__sum, excluded.mean__sum),
        mean__count = kept.mean__count + excluded.mean__count,
        sold = coalesce(kept.sold OR excluded.sold, kept.sold, excluded.sold),
        before__ = hash_record_extended(ROW(kept.place, kept.events, kept.users, kept.numbers, kept.buyers, kept.mean__sum, kept.mean__count, kept.sold), 8)
    RETURNING (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(place, events, users, numbers, buyers, mean__sum, mean__count, sold), 8) AS new__, before__ AS old__
),
checksums AS (
    INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
    SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
    FROM (
        SELECT 0 AS relation, slice__ AS slice, count(*) - count(old__) AS rows, sum(new__) - coalesce(sum(old__), 0) AS hash FROM written GROUP BY slice__
        UNION ALL
        SELECT 1 AS relation, slice__ AS slice, count(*) AS rows, sum(new__) AS hash FROM new_1 GROUP BY slice__
        UNION ALL
        SELECT 2 AS relation, slice__ AS slice, count(*) AS rows, sum(new__) AS hash FROM new_2 GROUP BY slice__
        UNION ALL
        SELECT 3 AS relation, slice__ AS slice, count(*) AS rows, sum(new__) AS hash FROM new_3 GROUP BY slice__
        UNION ALL
        SELECT -1 AS relation, refold.position_slice(position) AS slice, count(*) AS rows, sum(hashint8extended(position, ordinal)) AS hash FROM page GROUP BY 2
    ) AS changes
    GROUP BY relation, slice
)
SELECT (SELECT count(*) FROM page) AS events,
       (SELECT txid::text::bigint FROM upto__) AS txid, (SELECT position FROM upto__), (SELECT ordinal FROM upto__);

-- backlog
WITH upto__ AS MATERIALIZED (
    (SELECT txid, position, 0 AS ordinal, true AS full_page
     FROM refold.events
     WHERE (txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint)
       AND (txid, position) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint)
     ORDER BY txid, position OFFSET %(limit)s::bigint - 1 LIMIT 1)
    UNION ALL
    SELECT %(upto_txid)s::xid8, %(upto_position)s::bigint, %(upto_ordinal)s::integer, false
    ORDER BY full_page DESC LIMIT 1
),
page AS MATERIALIZED (
    SELECT txid, position, 0 AS ordinal, user_id, action, metadata
    FROM refold.events
    WHERE (txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint)
      AND (txid, position) <= ((SELECT txid FROM upto__), (SELECT position FROM upto__))
      AND txid <= (SELECT txid FROM upto__)
),
new_1 AS (
    INSERT INTO refold_builds.visitors__1__m1 (place, member__)
    SELECT DISTINCT metadata ->> 'place' AS place, user_id AS member__
    FROM page
    WHERE CASE WHEN (action <> 'noise') THEN (user_id) IS NOT NULL END
    ON CONFLICT DO NOTHING
    RETURNING (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(place, member__), 8) AS new__, place
),
new_2 AS (
    INSERT INTO refold_builds.visitors__1__m2 (place, member__)
    SELECT DISTINCT metadata ->> 'place' AS place, refold.plain(CAST((metadata ->> 'n') AS DECIMAL)) AS member__
    FROM page
    WHERE CASE WHEN (action <> 'noise') THEN (refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) IS NOT NULL END
    ON CONFLICT DO NOTHING
    RETURNING (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(place, member__), 8) AS new__, place
),
new_3 AS (
    INSERT INTO refold_builds.visitors__1__m3 (place, member__)
    SELECT DISTINCT metadata ->> 'place' AS place, user_id AS member__
    FROM page
    WHERE CASE WHEN (action <> 'noise') THEN CASE WHEN (action = 'buy') THEN (user_id) IS NOT NULL END END
    ON CONFLICT DO NOTHING
    RETURNING (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(place, member__), 8) AS new__, place
),
delta AS (
    SELECT metadata ->> 'place' AS place,
           COUNT(*) AS events,
           SUM(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__sum,
           COUNT(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__count,
           BOOL_OR(action = 'buy') AS sold
    FROM page
    WHERE (action <> 'noise')
    GROUP BY 1
),
written AS (
    INSERT INTO refold_builds.visitors__1 AS kept (place, events, users, numbers, buyers, mean__sum, mean__count, sold)
    SELECT place, sum(events) AS events, sum(users) AS users, sum(numbers) AS numbers, sum(buyers) AS buyers, sum(mean__sum) AS mean__sum, sum(mean__count) AS mean__count, bool_or(sold) AS sold
    FROM (
        SELECT place, events, 0 AS users, 0 AS numbers, 0 AS buyers, mean__sum, mean__count, sold FROM delta
        UNION ALL
        SELECT place, 0 AS events, count(*) AS users, 0 AS numbers, 0 AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM new_1 GROUP BY place
        UNION ALL
        SELECT place, 0 AS events, 0 AS users, count(*) AS numbers, 0 AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM new_2 GROUP BY place
        UNION ALL
        SELECT place, 0 AS events, 0 AS users, 0 AS numbers, count(*) AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM new_3 GROUP BY place
    ) AS arrived
    GROUP BY 1
    ON CONFLICT (place) DO UPDATE SET
        events = kept.events + excluded.events,
        users = kept.users + excluded.users,
        numbers = kept.numbers + excluded.numbers,
        buyers = kept.buyers + excluded.buyers,
        mean__sum = coalesce(kept.mean__sum + excluded.mean__sum, kept.mean__sum, excluded.mean__sum),
        mean__count = kept.mean__count + excluded.mean__count,
        sold = coalesce(kept.sold OR excluded.sold, kept.sold, excluded.sold),
        before__ = hash_record_extended(ROW(kept.place, kept.events, kept.users, kept.numbers, kept.buyers, kept.mean__sum, kept.mean__count, kept.sold), 8)
    RETURNING (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(place, events, users, numbers, buyers, mean__sum, mean__count, sold), 8) AS new__, before__ AS old__
),
checksums AS (
    INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
    SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
    FROM (
        SELECT 0 AS relation, slice__ AS slice, count(*) - count(old__) AS rows, sum(new__) - coalesce(sum(old__), 0) AS hash FROM written GROUP BY slice__
        UNION ALL
        SELECT 1 AS relation, slice__ AS slice, count(*) AS rows, sum(new__) AS hash FROM new_1 GROUP BY slice__
        UNION ALL
        SELECT 2 AS relation, slice__ AS slice, count(*) AS rows, sum(new__) AS hash FROM new_2 GROUP BY slice__
        UNION ALL
        SELECT 3 AS relation, slice__ AS slice, count(*) AS rows, sum(new__) AS hash FROM new_3 GROUP BY slice__
        UNION ALL
        SELECT -1 AS relation, refold.position_slice(position) AS slice, count(*) AS rows, sum(hashint8extended(position, ordinal)) AS hash FROM (
            SELECT position, 0 AS ordinal
            FROM refold.events
            WHERE (txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint)
              AND (txid, position) <= ((SELECT txid FROM upto__), (SELECT position FROM upto__))
              AND txid <= (SELECT txid FROM upto__)
        ) AS page GROUP BY 2
    ) AS changes
    GROUP BY relation, slice
)
SELECT CASE WHEN (SELECT full_page FROM upto__) THEN %(limit)s::bigint ELSE (SELECT count(*) FROM page) END AS events,
       (SELECT txid::text::bigint FROM upto__) AS txid, (SELECT position FROM upto__), (SELECT ordinal FROM upto__);

-- load
CREATE TEMPORARY TABLE fresh ON COMMIT DROP AS
SELECT metadata ->> 'place' AS place,
       user_id AS member__1,
       refold.plain(CAST((metadata ->> 'n') AS DECIMAL)) AS member__2,
       CASE WHEN action = 'buy' THEN user_id END AS member__3,
       COUNT(*) AS events,
       SUM(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__sum,
       COUNT(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__count,
       BOOL_OR(action = 'buy') AS sold
FROM refold.events
WHERE CASE WHEN (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
  AND (%(whole)s::boolean OR
       ((txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint) AND (txid, position) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint))) THEN (action <> 'noise') END
GROUP BY 1, 2, 3, 4;

-- load
INSERT INTO refold_builds.visitors__1__m1 (place, member__)
SELECT DISTINCT place, member__1 FROM fresh WHERE member__1 IS NOT NULL;

-- load
CREATE UNIQUE INDEX IF NOT EXISTS visitors__1__m1_key ON refold_builds.visitors__1__m1 (place, member__) NULLS NOT DISTINCT;

-- load
INSERT INTO refold_builds.visitors__1__m2 (place, member__)
SELECT DISTINCT place, member__2 FROM fresh WHERE member__2 IS NOT NULL;

-- load
CREATE UNIQUE INDEX IF NOT EXISTS visitors__1__m2_key ON refold_builds.visitors__1__m2 (place, member__) NULLS NOT DISTINCT;

-- load
INSERT INTO refold_builds.visitors__1__m3 (place, member__)
SELECT DISTINCT place, member__3 FROM fresh WHERE member__3 IS NOT NULL;

-- load
CREATE UNIQUE INDEX IF NOT EXISTS visitors__1__m3_key ON refold_builds.visitors__1__m3 (place, member__) NULLS NOT DISTINCT;

-- load
CREATE TEMPORARY TABLE delta ON COMMIT DROP AS
SELECT place, sum(events) AS events, sum(mean__sum) AS mean__sum, sum(mean__count) AS mean__count, bool_or(sold) AS sold FROM fresh GROUP BY place;

-- load
INSERT INTO refold_builds.visitors__1 AS kept (place, events, users, numbers, buyers, mean__sum, mean__count, sold)
SELECT place, sum(events) AS events, sum(users) AS users, sum(numbers) AS numbers, sum(buyers) AS buyers, sum(mean__sum) AS mean__sum, sum(mean__count) AS mean__count, bool_or(sold) AS sold
FROM (
    SELECT place, events, 0 AS users, 0 AS numbers, 0 AS buyers, mean__sum, mean__count, sold FROM delta
    UNION ALL
    SELECT place, 0 AS events, count(*) AS users, 0 AS numbers, 0 AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM refold_builds.visitors__1__m1 GROUP BY place
    UNION ALL
    SELECT place, 0 AS events, 0 AS users, count(*) AS numbers, 0 AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM refold_builds.visitors__1__m2 GROUP BY place
    UNION ALL
    SELECT place, 0 AS events, 0 AS users, 0 AS numbers, count(*) AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM refold_builds.visitors__1__m3 GROUP BY place
) AS arrived
GROUP BY 1
ON CONFLICT (place) DO UPDATE SET
    events = kept.events + excluded.events,
    users = kept.users + excluded.users,
    numbers = kept.numbers + excluded.numbers,
    buyers = kept.buyers + excluded.buyers,
    mean__sum = coalesce(kept.mean__sum + excluded.mean__sum, kept.mean__sum, excluded.mean__sum),
    mean__count = kept.mean__count + excluded.mean__count,
    sold = coalesce(kept.sold OR excluded.sold, kept.sold, excluded.sold),
    before__ = hash_record_extended(ROW(kept.place, kept.events, kept.users, kept.numbers, kept.buyers, kept.mean__sum, kept.mean__count, kept.sold), 8);

-- load_next
CREATE TEMPORARY TABLE fresh ON COMMIT DROP AS
SELECT metadata ->> 'place' AS place,
       user_id AS member__1,
       refold.plain(CAST((metadata ->> 'n') AS DECIMAL)) AS member__2,
       CASE WHEN action = 'buy' THEN user_id END AS member__3,
       COUNT(*) AS events,
       SUM(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__sum,
       COUNT(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__count,
       BOOL_OR(action = 'buy') AS sold
FROM refold.events
WHERE CASE WHEN (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
  AND (%(whole)s::boolean OR
       ((txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint) AND (txid, position) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint))) THEN (action <> 'noise') END
GROUP BY 1, 2, 3, 4;

-- load_next
CREATE TEMPORARY TABLE new_1 ON COMMIT DROP AS SELECT place FROM fresh WITH NO DATA;

-- load_next
WITH new AS (
    INSERT INTO refold_builds.visitors__1__m1 (place, member__)
    SELECT DISTINCT place, member__1 FROM fresh WHERE member__1 IS NOT NULL
    ON CONFLICT DO NOTHING
    RETURNING place
)
INSERT INTO new_1 SELECT * FROM new;

-- load_next
CREATE TEMPORARY TABLE new_2 ON COMMIT DROP AS SELECT place FROM fresh WITH NO DATA;

-- load_next
WITH new AS (
    INSERT INTO refold_builds.visitors__1__m2 (place, member__)
    SELECT DISTINCT place, member__2 FROM fresh WHERE member__2 IS NOT NULL
    ON CONFLICT DO NOTHING
    RETURNING place
)
INSERT INTO new_2 SELECT * FROM new;

-- load_next
CREATE TEMPORARY TABLE new_3 ON COMMIT DROP AS SELECT place FROM fresh WITH NO DATA;

-- load_next
WITH new AS (
    INSERT INTO refold_builds.visitors__1__m3 (place, member__)
    SELECT DISTINCT place, member__3 FROM fresh WHERE member__3 IS NOT NULL
    ON CONFLICT DO NOTHING
    RETURNING place
)
INSERT INTO new_3 SELECT * FROM new;

-- load_next
CREATE TEMPORARY TABLE delta ON COMMIT DROP AS
SELECT place, sum(events) AS events, sum(mean__sum) AS mean__sum, sum(mean__count) AS mean__count, bool_or(sold) AS sold FROM fresh GROUP BY place;

-- load_next
INSERT INTO refold_builds.visitors__1 AS kept (place, events, users, numbers, buyers, mean__sum, mean__count, sold)
SELECT place, sum(events) AS events, sum(users) AS users, sum(numbers) AS numbers, sum(buyers) AS buyers, sum(mean__sum) AS mean__sum, sum(mean__count) AS mean__count, bool_or(sold) AS sold
FROM (
    SELECT place, events, 0 AS users, 0 AS numbers, 0 AS buyers, mean__sum, mean__count, sold FROM delta
    UNION ALL
    SELECT place, 0 AS events, count(*) AS users, 0 AS numbers, 0 AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM new_1 GROUP BY place
    UNION ALL
    SELECT place, 0 AS events, 0 AS users, count(*) AS numbers, 0 AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM new_2 GROUP BY place
    UNION ALL
    SELECT place, 0 AS events, 0 AS users, 0 AS numbers, count(*) AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM new_3 GROUP BY place
) AS arrived
GROUP BY 1
ON CONFLICT (place) DO UPDATE SET
    events = kept.events + excluded.events,
    users = kept.users + excluded.users,
    numbers = kept.numbers + excluded.numbers,
    buyers = kept.buyers + excluded.buyers,
    mean__sum = coalesce(kept.mean__sum + excluded.mean__sum, kept.mean__sum, excluded.mean__sum),
    mean__count = kept.mean__count + excluded.mean__count,
    sold = coalesce(kept.sold OR excluded.sold, kept.sold, excluded.sold),
    before__ = hash_record_extended(ROW(kept.place, kept.events, kept.users, kept.numbers, kept.buyers, kept.mean__sum, kept.mean__count, kept.sold), 8);

-- audit of refold_builds.visitors__1
WITH expected AS MATERIALIZED (
    SELECT metadata ->> 'place' AS place,
           COUNT(*) AS events,
           count(DISTINCT user_id) AS users,
           count(DISTINCT refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) AS numbers,
           count(DISTINCT user_id) FILTER (WHERE action = 'buy') AS buyers,
           SUM(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__sum,
           COUNT(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__count,
           BOOL_OR(action = 'buy') AS sold
    FROM refold.events
    WHERE CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
         OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
      AND event_id <> ALL (%(dead)s::text[]) THEN (action <> 'noise') END
    GROUP BY 1
),
actual AS MATERIALIZED (
    SELECT place, events, users, numbers, buyers, mean__sum, mean__count, sold FROM refold_builds.visitors__1 WHERE true
)
SELECT 'expected' AS side, hash_record_extended(ROW(place), 0) AS hash, (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice, jsonb_build_object('place', d__.place) AS key, to_jsonb(d__) AS row
FROM (SELECT place, events, users, numbers, buyers, mean__sum, mean__count, sold FROM expected EXCEPT ALL SELECT place, events, users, numbers, buyers, mean__sum, mean__count, sold FROM actual) AS d__
UNION ALL
SELECT 'actual' AS side, hash_record_extended(ROW(place), 0) AS hash, (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice, jsonb_build_object('place', d__.place) AS key, to_jsonb(d__) AS row
FROM (SELECT place, events, users, numbers, buyers, mean__sum, mean__count, sold FROM actual EXCEPT ALL SELECT place, events, users, numbers, buyers, mean__sum, mean__count, sold FROM expected) AS d__;

-- healing of refold_builds.visitors__1: delete
DELETE FROM refold_builds.visitors__1 WHERE (true) AND hash_record_extended(ROW(place), 0) IN (SELECT unnest(%(keys)s::bigint[]));

-- healing of refold_builds.visitors__1: insert
INSERT INTO refold_builds.visitors__1 (place, events, users, numbers, buyers, mean__sum, mean__count, sold)
SELECT metadata ->> 'place' AS place,
       COUNT(*) AS events,
       count(DISTINCT user_id) AS users,
       count(DISTINCT refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) AS numbers,
       count(DISTINCT user_id) FILTER (WHERE action = 'buy') AS buyers,
       SUM(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__sum,
       COUNT(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__count,
       BOOL_OR(action = 'buy') AS sold
FROM refold.events
WHERE true
  AND CASE WHEN CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
  AND event_id <> ALL (%(dead)s::text[]) THEN (action <> 'noise') END THEN hash_record_extended(ROW(metadata ->> 'place'), 0) END IN (SELECT unnest(%(keys)s::bigint[]))
  AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
  AND event_id <> ALL (%(dead)s::text[]) THEN (action <> 'noise') END
GROUP BY 1;

-- audit of refold_builds.visitors__1__m1
WITH expected AS MATERIALIZED (
    SELECT DISTINCT metadata ->> 'place' AS place, user_id AS member__
    FROM refold.events
    WHERE CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
         OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
      AND event_id <> ALL (%(dead)s::text[]) THEN CASE WHEN (action <> 'noise') THEN (user_id) IS NOT NULL END END
),
actual AS MATERIALIZED (
    SELECT place, member__ FROM refold_builds.visitors__1__m1 WHERE true
)
SELECT 'expected' AS side, hash_record_extended(ROW(place), 0) AS hash, (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice, jsonb_build_object('place', d__.place, 'member__', d__.member__) AS key, to_jsonb(d__) AS row
FROM (SELECT place, member__ FROM expected EXCEPT ALL SELECT place, member__ FROM actual) AS d__
UNION ALL
SELECT 'actual' AS side, hash_record_extended(ROW(place), 0) AS hash, (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice, jsonb_build_object('place', d__.place, 'member__', d__.member__) AS key, to_jsonb(d__) AS row
FROM (SELECT place, member__ FROM actual EXCEPT ALL SELECT place, member__ FROM expected) AS d__;

-- healing of refold_builds.visitors__1__m1: delete
DELETE FROM refold_builds.visitors__1__m1 WHERE (true) AND hash_record_extended(ROW(place), 0) IN (SELECT unnest(%(keys)s::bigint[]));

-- healing of refold_builds.visitors__1__m1: insert
INSERT INTO refold_builds.visitors__1__m1 (place, member__)
SELECT DISTINCT metadata ->> 'place' AS place, user_id AS member__
FROM refold.events
WHERE true
  AND CASE WHEN CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
  AND event_id <> ALL (%(dead)s::text[]) THEN (action <> 'noise') END THEN hash_record_extended(ROW(metadata ->> 'place'), 0) END IN (SELECT unnest(%(keys)s::bigint[]))
  AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
  AND event_id <> ALL (%(dead)s::text[]) THEN CASE WHEN (action <> 'noise') THEN (user_id) IS NOT NULL END END;

-- audit of refold_builds.visitors__1__m2
WITH expected AS MATERIALIZED (
    SELECT DISTINCT metadata ->> 'place' AS place, refold.plain(CAST((metadata ->> 'n') AS DECIMAL)) AS member__
    FROM refold.events
    WHERE CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
         OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
      AND event_id <> ALL (%(dead)s::text[]) THEN CASE WHEN (action <> 'noise') THEN (refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) IS NOT NULL END END
),
actual AS MATERIALIZED (
    SELECT place, member__ FROM refold_builds.visitors__1__m2 WHERE true
)
SELECT 'expected' AS side, hash_record_extended(ROW(place), 0) AS hash, (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice, jsonb_build_object('place', d__.place, 'member__', d__.member__) AS key, to_jsonb(d__) AS row
FROM (SELECT place, member__ FROM expected EXCEPT ALL SELECT place, member__ FROM actual) AS d__
UNION ALL
SELECT 'actual' AS side, hash_record_extended(ROW(place), 0) AS hash, (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice, jsonb_build_object('place', d__.place, 'member__', d__.member__) AS key, to_jsonb(d__) AS row
FROM (SELECT place, member__ FROM actual EXCEPT ALL SELECT place, member__ FROM expected) AS d__;

-- healing of refold_builds.visitors__1__m2: delete
DELETE FROM refold_builds.visitors__1__m2 WHERE (true) AND hash_record_extended(ROW(place), 0) IN (SELECT unnest(%(keys)s::bigint[]));

-- healing of refold_builds.visitors__1__m2: insert
INSERT INTO refold_builds.visitors__1__m2 (place, member__)
SELECT DISTINCT metadata ->> 'place' AS place, refold.plain(CAST((metadata ->> 'n') AS DECIMAL)) AS member__
FROM refold.events
WHERE true
  AND CASE WHEN CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
  AND event_id <> ALL (%(dead)s::text[]) THEN (action <> 'noise') END THEN hash_record_extended(ROW(metadata ->> 'place'), 0) END IN (SELECT unnest(%(keys)s::bigint[]))
  AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
  AND event_id <> ALL (%(dead)s::text[]) THEN CASE WHEN (action <> 'noise') THEN (refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) IS NOT NULL END END;

-- audit of refold_builds.visitors__1__m3
WITH expected AS MATERIALIZED (
    SELECT DISTINCT metadata ->> 'place' AS place, user_id AS member__
    FROM refold.events
    WHERE CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
         OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
      AND event_id <> ALL (%(dead)s::text[]) THEN CASE WHEN (action <> 'noise') THEN CASE WHEN (action = 'buy') THEN (user_id) IS NOT NULL END END END
),
actual AS MATERIALIZED (
    SELECT place, member__ FROM refold_builds.visitors__1__m3 WHERE true
)
SELECT 'expected' AS side, hash_record_extended(ROW(place), 0) AS hash, (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice, jsonb_build_object('place', d__.place, 'member__', d__.member__) AS key, to_jsonb(d__) AS row
FROM (SELECT place, member__ FROM expected EXCEPT ALL SELECT place, member__ FROM actual) AS d__
UNION ALL
SELECT 'actual' AS side, hash_record_extended(ROW(place), 0) AS hash, (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice, jsonb_build_object('place', d__.place, 'member__', d__.member__) AS key, to_jsonb(d__) AS row
FROM (SELECT place, member__ FROM actual EXCEPT ALL SELECT place, member__ FROM expected) AS d__;

-- healing of refold_builds.visitors__1__m3: delete
DELETE FROM refold_builds.visitors__1__m3 WHERE (true) AND hash_record_extended(ROW(place), 0) IN (SELECT unnest(%(keys)s::bigint[]));

-- healing of refold_builds.visitors__1__m3: insert
INSERT INTO refold_builds.visitors__1__m3 (place, member__)
SELECT DISTINCT metadata ->> 'place' AS place, user_id AS member__
FROM refold.events
WHERE true
  AND CASE WHEN CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
  AND event_id <> ALL (%(dead)s::text[]) THEN (action <> 'noise') END THEN hash_record_extended(ROW(metadata ->> 'place'), 0) END IN (SELECT unnest(%(keys)s::bigint[]))
  AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
  AND event_id <> ALL (%(dead)s::text[]) THEN CASE WHEN (action <> 'noise') THEN CASE WHEN (action = 'buy') THEN (user_id) IS NOT NULL END END END;

-- view
SELECT place, events, users, numbers, buyers, (CAST(mean__sum AS DECIMAL) / NULLIF(mean__count, 0)) AS mean, sold FROM refold_builds.visitors__1 WHERE events > buyers;

-- rows with the events in `arriving`
WITH new_1 AS (
    SELECT DISTINCT metadata ->> 'place' AS place, user_id AS member__
    FROM arriving
    WHERE CASE WHEN (action <> 'noise') THEN (user_id) IS NOT NULL END
    EXCEPT SELECT place, member__ FROM refold_builds.visitors__1__m1
),
new_2 AS (
    SELECT DISTINCT metadata ->> 'place' AS place, refold.plain(CAST((metadata ->> 'n') AS DECIMAL)) AS member__
    FROM arriving
    WHERE CASE WHEN (action <> 'noise') THEN (refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) IS NOT NULL END
    EXCEPT SELECT place, member__ FROM refold_builds.visitors__1__m2
),
new_3 AS (
    SELECT DISTINCT metadata ->> 'place' AS place, user_id AS member__
    FROM arriving
    WHERE CASE WHEN (action <> 'noise') THEN CASE WHEN (action = 'buy') THEN (user_id) IS NOT NULL END END
    EXCEPT SELECT place, member__ FROM refold_builds.visitors__1__m3
),
delta AS (
    SELECT metadata ->> 'place' AS place,
           COUNT(*) AS events,
           SUM(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__sum,
           COUNT(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__count,
           BOOL_OR(action = 'buy') AS sold
    FROM arriving
    WHERE (action <> 'noise')
    GROUP BY 1
),
excluded AS MATERIALIZED (
    SELECT place, sum(events) AS events, sum(users) AS users, sum(numbers) AS numbers, sum(buyers) AS buyers, sum(mean__sum) AS mean__sum, sum(mean__count) AS mean__count, bool_or(sold) AS sold
    FROM (
        SELECT place, events, 0 AS users, 0 AS numbers, 0 AS buyers, mean__sum, mean__count, sold FROM delta
        UNION ALL
        SELECT place, 0 AS events, count(*) AS users, 0 AS numbers, 0 AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM new_1 GROUP BY place
        UNION ALL
        SELECT place, 0 AS events, 0 AS users, count(*) AS numbers, 0 AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM new_2 GROUP BY place
        UNION ALL
        SELECT place, 0 AS events, 0 AS users, 0 AS numbers, count(*) AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM new_3 GROUP BY place
    ) AS arrived
    GROUP BY 1
)
SELECT excluded.place,
       CASE WHEN kept.there__ THEN kept.events + excluded.events ELSE excluded.events END AS events,
       CASE WHEN kept.there__ THEN kept.users + excluded.users ELSE excluded.users END AS users,
       CASE WHEN kept.there__ THEN kept.numbers + excluded.numbers ELSE excluded.numbers END AS numbers,
       CASE WHEN kept.there__ THEN kept.buyers + excluded.buyers ELSE excluded.buyers END AS buyers,
       CASE WHEN kept.there__ THEN coalesce(kept.mean__sum + excluded.mean__sum, kept.mean__sum, excluded.mean__sum) ELSE excluded.mean__sum END AS mean__sum,
       CASE WHEN kept.there__ THEN kept.mean__count + excluded.mean__count ELSE excluded.mean__count END AS mean__count,
       CASE WHEN kept.there__ THEN coalesce(kept.sold OR excluded.sold, kept.sold, excluded.sold) ELSE excluded.sold END AS sold
FROM excluded
LEFT JOIN (SELECT *, true AS there__ FROM refold_builds.visitors__1) AS kept
    ON hash_record_extended(ROW(kept.place), 0) = hash_record_extended(ROW(excluded.place), 0) AND kept.place IS NOT DISTINCT FROM excluded.place;

-- base: create
CREATE TABLE refold_builds.visitors__1__base AS SELECT place, events, mean__sum, mean__count, sold FROM refold_builds.visitors__1 WITH NO DATA;

-- base: create
ALTER TABLE refold_builds.visitors__1__base ADD COLUMN upto__ bigint NOT NULL, ADD COLUMN before__ bigint;

-- base: create
CREATE UNIQUE INDEX visitors__1__base__key ON refold_builds.visitors__1__base (place, upto__) NULLS NOT DISTINCT;

-- base: create
CREATE INDEX visitors__1__base__new ON refold_builds.visitors__1__base (upto__) WHERE upto__ > 1;

-- base: create
CREATE STATISTICS refold_builds.visitors__1__base__slice ON ((hash_record_extended(ROW(place), 0) >> 56)::integer) FROM refold_builds.visitors__1__base;

-- base: create
CREATE TABLE refold_builds.visitors__1__m1__base AS SELECT place, member__ FROM refold_builds.visitors__1__m1 WITH NO DATA;

-- base: create
ALTER TABLE refold_builds.visitors__1__m1__base ADD COLUMN upto__ bigint NOT NULL;

-- base: create
CREATE UNIQUE INDEX visitors__1__m1__base_key ON refold_builds.visitors__1__m1__base (place, member__) NULLS NOT DISTINCT;

-- base: create
CREATE TABLE refold_builds.visitors__1__m2__base AS SELECT place, member__ FROM refold_builds.visitors__1__m2 WITH NO DATA;

-- base: create
ALTER TABLE refold_builds.visitors__1__m2__base ADD COLUMN upto__ bigint NOT NULL;

-- base: create
CREATE UNIQUE INDEX visitors__1__m2__base_key ON refold_builds.visitors__1__m2__base (place, member__) NULLS NOT DISTINCT;

-- base: create
CREATE TABLE refold_builds.visitors__1__m3__base AS SELECT place, member__ FROM refold_builds.visitors__1__m3 WITH NO DATA;

-- base: create
ALTER TABLE refold_builds.visitors__1__m3__base ADD COLUMN upto__ bigint NOT NULL;

-- base: create
CREATE UNIQUE INDEX visitors__1__m3__base_key ON refold_builds.visitors__1__m3__base (place, member__) NULLS NOT DISTINCT;

-- base: fold the events in `arriving`
WITH read__ AS MATERIALIZED (
    SELECT * FROM arriving
    WHERE position >= %(lower)s::bigint AND position < %(upper)s::bigint
),
page AS (
    SELECT * FROM read__ WHERE event_id <> ALL (%(dead)s::text[])
),
written AS (
    INSERT INTO refold_builds.visitors__1__base AS kept (place, events, mean__sum, mean__count, sold, upto__)
    SELECT place, events, mean__sum, mean__count, sold, %(upto)s::bigint FROM (
        SELECT metadata ->> 'place' AS place,
               COUNT(*) AS events,
               SUM(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__sum,
               COUNT(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__count,
               BOOL_OR(action = 'buy') AS sold
        FROM page
        WHERE (action <> 'noise')
        GROUP BY 1
    ) AS delta WHERE true
    ON CONFLICT (place, upto__) DO UPDATE SET
        events = kept.events + excluded.events,
        mean__sum = coalesce(kept.mean__sum + excluded.mean__sum, kept.mean__sum, excluded.mean__sum),
        mean__count = kept.mean__count + excluded.mean__count,
        sold = coalesce(kept.sold OR excluded.sold, kept.sold, excluded.sold),
        before__ = hash_record_extended(ROW(kept.place, kept.events, kept.mean__sum, kept.mean__count, kept.sold, kept.upto__), 8)
    RETURNING (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(place, events, mean__sum, mean__count, sold, upto__), 8) AS new__, before__ AS old__
),
new_1 AS (
    INSERT INTO refold_builds.visitors__1__m1__base (place, member__, upto__)
    SELECT place, member__, %(upto)s::bigint FROM (
        SELECT DISTINCT metadata ->> 'place' AS place, user_id AS member__
        FROM page
        WHERE CASE WHEN (action <> 'noise') THEN (user_id) IS NOT NULL END
    ) AS new
    ON CONFLICT DO NOTHING
    RETURNING (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(place, member__, upto__), 8) AS new__
),
new_2 AS (
    INSERT INTO refold_builds.visitors__1__m2__base (place, member__, upto__)
    SELECT place, member__, %(upto)s::bigint FROM (
        SELECT DISTINCT metadata ->> 'place' AS place, refold.plain(CAST((metadata ->> 'n') AS DECIMAL)) AS member__
        FROM page
        WHERE CASE WHEN (action <> 'noise') THEN (refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) IS NOT NULL END
    ) AS new
    ON CONFLICT DO NOTHING
    RETURNING (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(place, member__, upto__), 8) AS new__
),
new_3 AS (
    INSERT INTO refold_builds.visitors__1__m3__base (place, member__, upto__)
    SELECT place, member__, %(upto)s::bigint FROM (
        SELECT DISTINCT metadata ->> 'place' AS place, user_id AS member__
        FROM page
        WHERE CASE WHEN (action <> 'noise') THEN CASE WHEN (action = 'buy') THEN (user_id) IS NOT NULL END END
    ) AS new
    ON CONFLICT DO NOTHING
    RETURNING (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(place, member__, upto__), 8) AS new__
),
checksums AS (
    INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
    SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
    FROM (
        SELECT 4 AS relation, slice__ AS slice, count(*) - count(old__) AS rows, sum(new__) - coalesce(sum(old__), 0) AS hash FROM written GROUP BY slice__
        UNION ALL
        SELECT 5 AS relation, slice__ AS slice, count(*) AS rows, sum(new__) AS hash FROM new_1 GROUP BY slice__
        UNION ALL
        SELECT 6 AS relation, slice__ AS slice, count(*) AS rows, sum(new__) AS hash FROM new_2 GROUP BY slice__
        UNION ALL
        SELECT 7 AS relation, slice__ AS slice, count(*) AS rows, sum(new__) AS hash FROM new_3 GROUP BY slice__
    ) AS changes
    GROUP BY relation, slice
)
SELECT count(*), coalesce(sum(hashint8extended(position, 0)), 0), coalesce(sum(hash_record_extended(ROW(txid, position, event_id, user_id, action, ts, metadata::text, version, recorded_at), 0)), 0) FROM read__;

-- base: undo
WITH gone_0 AS (
    DELETE FROM refold_builds.visitors__1__base WHERE upto__ > %(floor)s::bigint AND upto__ > 1
    RETURNING (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(place, events, mean__sum, mean__count, sold, upto__), 8) AS new__
),
gone_1 AS (
    DELETE FROM refold_builds.visitors__1__m1__base WHERE upto__ > %(floor)s::bigint AND upto__ > 1
    RETURNING (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(place, member__, upto__), 8) AS new__
),
gone_2 AS (
    DELETE FROM refold_builds.visitors__1__m2__base WHERE upto__ > %(floor)s::bigint AND upto__ > 1
    RETURNING (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(place, member__, upto__), 8) AS new__
),
gone_3 AS (
    DELETE FROM refold_builds.visitors__1__m3__base WHERE upto__ > %(floor)s::bigint AND upto__ > 1
    RETURNING (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(place, member__, upto__), 8) AS new__
)
INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
FROM (
    SELECT 4 AS relation, slice__ AS slice, -count(*) AS rows, -sum(new__) AS hash FROM gone_0 GROUP BY slice__
    UNION ALL
    SELECT 5 AS relation, slice__ AS slice, -count(*) AS rows, -sum(new__) AS hash FROM gone_1 GROUP BY slice__
    UNION ALL
    SELECT 6 AS relation, slice__ AS slice, -count(*) AS rows, -sum(new__) AS hash FROM gone_2 GROUP BY slice__
    UNION ALL
    SELECT 7 AS relation, slice__ AS slice, -count(*) AS rows, -sum(new__) AS hash FROM gone_3 GROUP BY slice__
) AS changes
GROUP BY relation, slice;

-- base: settle
WITH gone AS (
    DELETE FROM refold_builds.visitors__1__base WHERE ctid = ANY (ARRAY(SELECT ctid FROM refold_builds.visitors__1__base WHERE upto__ > 1 AND upto__ <= %(floor)s::bigint LIMIT %(limit)s::bigint))
    RETURNING (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(place, events, mean__sum, mean__count, sold, upto__), 8) AS new__, place, events, mean__sum, mean__count, sold
),
written AS (
    INSERT INTO refold_builds.visitors__1__base AS kept (place, events, mean__sum, mean__count, sold, upto__)
    SELECT place, sum(events) AS events, sum(mean__sum) AS mean__sum, sum(mean__count) AS mean__count, bool_or(sold) AS sold, 1 FROM gone GROUP BY place
    ON CONFLICT (place, upto__) DO UPDATE SET
        events = kept.events + excluded.events,
        mean__sum = coalesce(kept.mean__sum + excluded.mean__sum, kept.mean__sum, excluded.mean__sum),
        mean__count = kept.mean__count + excluded.mean__count,
        sold = coalesce(kept.sold OR excluded.sold, kept.sold, excluded.sold),
        before__ = hash_record_extended(ROW(kept.place, kept.events, kept.mean__sum, kept.mean__count, kept.sold, kept.upto__), 8)
    RETURNING (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(place, events, mean__sum, mean__count, sold, upto__), 8) AS new__, before__ AS old__
),
checksums AS (
    INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
    SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
    FROM (
        SELECT 4 AS relation, slice__ AS slice, -count(*) AS rows, -sum(new__) AS hash FROM gone GROUP BY slice__
        UNION ALL
        SELECT 4 AS relation, slice__ AS slice, count(*) - count(old__) AS rows, sum(new__) - coalesce(sum(old__), 0) AS hash FROM written GROUP BY slice__
    ) AS changes
    GROUP BY relation, slice
)
SELECT count(*) FROM gone;

-- base: copy that of `another`
WITH copied_0 AS (
    INSERT INTO refold_builds.visitors__1__base (place, events, mean__sum, mean__count, sold, upto__)
    SELECT place, events, mean__sum, mean__count, sold, upto__ FROM refold_builds.another__base WHERE upto__ <= %(floor)s::bigint
),
copied_1 AS (
    INSERT INTO refold_builds.visitors__1__m1__base (place, member__, upto__)
    SELECT place, member__, upto__ FROM refold_builds.another__m1__base WHERE upto__ <= %(floor)s::bigint
),
copied_2 AS (
    INSERT INTO refold_builds.visitors__1__m2__base (place, member__, upto__)
    SELECT place, member__, upto__ FROM refold_builds.another__m2__base WHERE upto__ <= %(floor)s::bigint
),
copied_3 AS (
    INSERT INTO refold_builds.visitors__1__m3__base (place, member__, upto__)
    SELECT place, member__, upto__ FROM refold_builds.another__m3__base WHERE upto__ <= %(floor)s::bigint
)
SELECT;

-- base: load
INSERT INTO refold_builds.visitors__1__m1 (place, member__) SELECT place, member__ FROM refold_builds.visitors__1__m1__base WHERE upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1');

-- base: load
INSERT INTO refold_builds.visitors__1__m2 (place, member__) SELECT place, member__ FROM refold_builds.visitors__1__m2__base WHERE upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1');

-- base: load
INSERT INTO refold_builds.visitors__1__m3 (place, member__) SELECT place, member__ FROM refold_builds.visitors__1__m3__base WHERE upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1');

-- base: load
CREATE UNIQUE INDEX IF NOT EXISTS visitors__1__m1_key ON refold_builds.visitors__1__m1 (place, member__) NULLS NOT DISTINCT;

-- base: load
CREATE UNIQUE INDEX IF NOT EXISTS visitors__1__m2_key ON refold_builds.visitors__1__m2 (place, member__) NULLS NOT DISTINCT;

-- base: load
CREATE UNIQUE INDEX IF NOT EXISTS visitors__1__m3_key ON refold_builds.visitors__1__m3 (place, member__) NULLS NOT DISTINCT;

-- base: load
INSERT INTO refold_builds.visitors__1 (place, events, users, numbers, buyers, mean__sum, mean__count, sold)
SELECT (row__).place, (row__).events, (row__).users, (row__).numbers, (row__).buyers, (row__).mean__sum, (row__).mean__count, (row__).sold
FROM (
    SELECT ROW(place, sum(events), sum(users), sum(numbers), sum(buyers), sum(mean__sum), sum(mean__count), bool_or(sold), NULL)::refold_builds.visitors__1 AS row__
    FROM (
        SELECT place, events, 0 AS users, 0 AS numbers, 0 AS buyers, mean__sum, mean__count, sold FROM refold_builds.visitors__1__base WHERE (true) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
        UNION ALL
        SELECT place, 0 AS events, count(*) AS users, 0 AS numbers, 0 AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM (
            SELECT place, member__ FROM refold_builds.visitors__1__m1__base WHERE (true) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
        ) AS members GROUP BY place
        UNION ALL
        SELECT place, 0 AS events, 0 AS users, count(*) AS numbers, 0 AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM (
            SELECT place, member__ FROM refold_builds.visitors__1__m2__base WHERE (true) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
        ) AS members GROUP BY place
        UNION ALL
        SELECT place, 0 AS events, 0 AS users, 0 AS numbers, count(*) AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM (
            SELECT place, member__ FROM refold_builds.visitors__1__m3__base WHERE (true) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
        ) AS members GROUP BY place
    ) AS parts
    GROUP BY place
) AS together;

-- with a base: audit of refold_builds.visitors__1
WITH expected AS MATERIALIZED (
    SELECT (row__).place, (row__).events, (row__).users, (row__).numbers, (row__).buyers, (row__).mean__sum, (row__).mean__count, (row__).sold
    FROM (
        SELECT ROW(place, sum(events), sum(users), sum(numbers), sum(buyers), sum(mean__sum), sum(mean__count), bool_or(sold), NULL)::refold_builds.visitors__1 AS row__
        FROM (
            SELECT place, events, 0 AS users, 0 AS numbers, 0 AS buyers, mean__sum, mean__count, sold FROM refold_builds.visitors__1__base WHERE (true) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
            UNION ALL
            SELECT place, events, 0 AS users, 0 AS numbers, 0 AS buyers, mean__sum, mean__count, sold FROM (
                SELECT metadata ->> 'place' AS place,
                       COUNT(*) AS events,
                       SUM(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__sum,
                       COUNT(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__count,
                       BOOL_OR(action = 'buy') AS sold
                FROM refold.events
                WHERE position >= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
                  AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
                  AND event_id <> ALL (%(dead)s::text[]) THEN (action <> 'noise') END
                GROUP BY 1
            ) AS delta
            UNION ALL
            SELECT place, 0 AS events, count(*) AS users, 0 AS numbers, 0 AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM (
                SELECT place, member__ FROM refold_builds.visitors__1__m1__base WHERE (true) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
                UNION
                SELECT DISTINCT metadata ->> 'place' AS place, user_id AS member__
                FROM refold.events
                WHERE position >= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
                  AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
                  AND event_id <> ALL (%(dead)s::text[]) THEN CASE WHEN (action <> 'noise') THEN (user_id) IS NOT NULL END END
            ) AS members GROUP BY place
            UNION ALL
            SELECT place, 0 AS events, 0 AS users, count(*) AS numbers, 0 AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM (
                SELECT place, member__ FROM refold_builds.visitors__1__m2__base WHERE (true) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
                UNION
                SELECT DISTINCT metadata ->> 'place' AS place, refold.plain(CAST((metadata ->> 'n') AS DECIMAL)) AS member__
                FROM refold.events
                WHERE position >= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
                  AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
                  AND event_id <> ALL (%(dead)s::text[]) THEN CASE WHEN (action <> 'noise') THEN (refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) IS NOT NULL END END
            ) AS members GROUP BY place
            UNION ALL
            SELECT place, 0 AS events, 0 AS users, 0 AS numbers, count(*) AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM (
                SELECT place, member__ FROM refold_builds.visitors__1__m3__base WHERE (true) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
                UNION
                SELECT DISTINCT metadata ->> 'place' AS place, user_id AS member__
                FROM refold.events
                WHERE position >= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
                  AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
                  AND event_id <> ALL (%(dead)s::text[]) THEN CASE WHEN (action <> 'noise') THEN CASE WHEN (action = 'buy') THEN (user_id) IS NOT NULL END END END
            ) AS members GROUP BY place
        ) AS parts
        GROUP BY place
    ) AS together
),
actual AS MATERIALIZED (
    SELECT place, events, users, numbers, buyers, mean__sum, mean__count, sold FROM refold_builds.visitors__1 WHERE true
)
SELECT 'expected' AS side, hash_record_extended(ROW(place), 0) AS hash, (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice, jsonb_build_object('place', d__.place) AS key, to_jsonb(d__) AS row
FROM (SELECT place, events, users, numbers, buyers, mean__sum, mean__count, sold FROM expected EXCEPT ALL SELECT place, events, users, numbers, buyers, mean__sum, mean__count, sold FROM actual) AS d__
UNION ALL
SELECT 'actual' AS side, hash_record_extended(ROW(place), 0) AS hash, (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice, jsonb_build_object('place', d__.place) AS key, to_jsonb(d__) AS row
FROM (SELECT place, events, users, numbers, buyers, mean__sum, mean__count, sold FROM actual EXCEPT ALL SELECT place, events, users, numbers, buyers, mean__sum, mean__count, sold FROM expected) AS d__;

-- with a base: healing of refold_builds.visitors__1: insert
INSERT INTO refold_builds.visitors__1 (place, events, users, numbers, buyers, mean__sum, mean__count, sold)
SELECT (row__).place, (row__).events, (row__).users, (row__).numbers, (row__).buyers, (row__).mean__sum, (row__).mean__count, (row__).sold
FROM (
    SELECT ROW(place, sum(events), sum(users), sum(numbers), sum(buyers), sum(mean__sum), sum(mean__count), bool_or(sold), NULL)::refold_builds.visitors__1 AS row__
    FROM (
        SELECT place, events, 0 AS users, 0 AS numbers, 0 AS buyers, mean__sum, mean__count, sold FROM refold_builds.visitors__1__base WHERE ((true) AND hash_record_extended(ROW(place), 0) IN (SELECT unnest(%(keys)s::bigint[]))) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
        UNION ALL
        SELECT place, events, 0 AS users, 0 AS numbers, 0 AS buyers, mean__sum, mean__count, sold FROM (
            SELECT metadata ->> 'place' AS place,
                   COUNT(*) AS events,
                   SUM(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__sum,
                   COUNT(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__count,
                   BOOL_OR(action = 'buy') AS sold
            FROM refold.events
            WHERE position >= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
              AND true
              AND CASE WHEN CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                 OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
              AND event_id <> ALL (%(dead)s::text[]) THEN (action <> 'noise') END THEN hash_record_extended(ROW(metadata ->> 'place'), 0) END IN (SELECT unnest(%(keys)s::bigint[]))
              AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                 OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
              AND event_id <> ALL (%(dead)s::text[]) THEN (action <> 'noise') END
            GROUP BY 1
        ) AS delta
        UNION ALL
        SELECT place, 0 AS events, count(*) AS users, 0 AS numbers, 0 AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM (
            SELECT place, member__ FROM refold_builds.visitors__1__m1__base WHERE ((true) AND hash_record_extended(ROW(place), 0) IN (SELECT unnest(%(keys)s::bigint[]))) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
            UNION
            SELECT DISTINCT metadata ->> 'place' AS place, user_id AS member__
            FROM refold.events
            WHERE position >= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
              AND true
              AND CASE WHEN CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                 OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
              AND event_id <> ALL (%(dead)s::text[]) THEN (action <> 'noise') END THEN hash_record_extended(ROW(metadata ->> 'place'), 0) END IN (SELECT unnest(%(keys)s::bigint[]))
              AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                 OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
              AND event_id <> ALL (%(dead)s::text[]) THEN CASE WHEN (action <> 'noise') THEN (user_id) IS NOT NULL END END
        ) AS members GROUP BY place
        UNION ALL
        SELECT place, 0 AS events, 0 AS users, count(*) AS numbers, 0 AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM (
            SELECT place, member__ FROM refold_builds.visitors__1__m2__base WHERE ((true) AND hash_record_extended(ROW(place), 0) IN (SELECT unnest(%(keys)s::bigint[]))) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
            UNION
            SELECT DISTINCT metadata ->> 'place' AS place, refold.plain(CAST((metadata ->> 'n') AS DECIMAL)) AS member__
            FROM refold.events
            WHERE position >= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
              AND true
              AND CASE WHEN CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                 OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
              AND event_id <> ALL (%(dead)s::text[]) THEN (action <> 'noise') END THEN hash_record_extended(ROW(metadata ->> 'place'), 0) END IN (SELECT unnest(%(keys)s::bigint[]))
              AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                 OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
              AND event_id <> ALL (%(dead)s::text[]) THEN CASE WHEN (action <> 'noise') THEN (refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) IS NOT NULL END END
        ) AS members GROUP BY place
        UNION ALL
        SELECT place, 0 AS events, 0 AS users, 0 AS numbers, count(*) AS buyers, NULL AS mean__sum, 0 AS mean__count, NULL AS sold FROM (
            SELECT place, member__ FROM refold_builds.visitors__1__m3__base WHERE ((true) AND hash_record_extended(ROW(place), 0) IN (SELECT unnest(%(keys)s::bigint[]))) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
            UNION
            SELECT DISTINCT metadata ->> 'place' AS place, user_id AS member__
            FROM refold.events
            WHERE position >= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
              AND true
              AND CASE WHEN CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                 OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
              AND event_id <> ALL (%(dead)s::text[]) THEN (action <> 'noise') END THEN hash_record_extended(ROW(metadata ->> 'place'), 0) END IN (SELECT unnest(%(keys)s::bigint[]))
              AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                 OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
              AND event_id <> ALL (%(dead)s::text[]) THEN CASE WHEN (action <> 'noise') THEN CASE WHEN (action = 'buy') THEN (user_id) IS NOT NULL END END END
        ) AS members GROUP BY place
    ) AS parts
    GROUP BY place
) AS together;

-- with a base: audit of refold_builds.visitors__1__m1
WITH expected AS MATERIALIZED (
    SELECT place, member__ FROM refold_builds.visitors__1__m1__base WHERE (true) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
    UNION
    SELECT DISTINCT metadata ->> 'place' AS place, user_id AS member__
    FROM refold.events
    WHERE position >= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
      AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
         OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
      AND event_id <> ALL (%(dead)s::text[]) THEN CASE WHEN (action <> 'noise') THEN (user_id) IS NOT NULL END END
),
actual AS MATERIALIZED (
    SELECT place, member__ FROM refold_builds.visitors__1__m1 WHERE true
)
SELECT 'expected' AS side, hash_record_extended(ROW(place), 0) AS hash, (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice, jsonb_build_object('place', d__.place, 'member__', d__.member__) AS key, to_jsonb(d__) AS row
FROM (SELECT place, member__ FROM expected EXCEPT ALL SELECT place, member__ FROM actual) AS d__
UNION ALL
SELECT 'actual' AS side, hash_record_extended(ROW(place), 0) AS hash, (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice, jsonb_build_object('place', d__.place, 'member__', d__.member__) AS key, to_jsonb(d__) AS row
FROM (SELECT place, member__ FROM actual EXCEPT ALL SELECT place, member__ FROM expected) AS d__;

-- with a base: healing of refold_builds.visitors__1__m1: insert
INSERT INTO refold_builds.visitors__1__m1 (place, member__)
SELECT place, member__ FROM refold_builds.visitors__1__m1__base WHERE ((true) AND hash_record_extended(ROW(place), 0) IN (SELECT unnest(%(keys)s::bigint[]))) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
UNION
SELECT DISTINCT metadata ->> 'place' AS place, user_id AS member__
FROM refold.events
WHERE position >= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
  AND true
  AND CASE WHEN CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
  AND event_id <> ALL (%(dead)s::text[]) THEN (action <> 'noise') END THEN hash_record_extended(ROW(metadata ->> 'place'), 0) END IN (SELECT unnest(%(keys)s::bigint[]))
  AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
  AND event_id <> ALL (%(dead)s::text[]) THEN CASE WHEN (action <> 'noise') THEN (user_id) IS NOT NULL END END;

-- with a base: audit of refold_builds.visitors__1__m2
WITH expected AS MATERIALIZED (
    SELECT place, member__ FROM refold_builds.visitors__1__m2__base WHERE (true) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
    UNION
    SELECT DISTINCT metadata ->> 'place' AS place, refold.plain(CAST((metadata ->> 'n') AS DECIMAL)) AS member__
    FROM refold.events
    WHERE position >= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
      AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
         OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
      AND event_id <> ALL (%(dead)s::text[]) THEN CASE WHEN (action <> 'noise') THEN (refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) IS NOT NULL END END
),
actual AS MATERIALIZED (
    SELECT place, member__ FROM refold_builds.visitors__1__m2 WHERE true
)
SELECT 'expected' AS side, hash_record_extended(ROW(place), 0) AS hash, (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice, jsonb_build_object('place', d__.place, 'member__', d__.member__) AS key, to_jsonb(d__) AS row
FROM (SELECT place, member__ FROM expected EXCEPT ALL SELECT place, member__ FROM actual) AS d__
UNION ALL
SELECT 'actual' AS side, hash_record_extended(ROW(place), 0) AS hash, (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice, jsonb_build_object('place', d__.place, 'member__', d__.member__) AS key, to_jsonb(d__) AS row
FROM (SELECT place, member__ FROM actual EXCEPT ALL SELECT place, member__ FROM expected) AS d__;

-- with a base: healing of refold_builds.visitors__1__m2: insert
INSERT INTO refold_builds.visitors__1__m2 (place, member__)
SELECT place, member__ FROM refold_builds.visitors__1__m2__base WHERE ((true) AND hash_record_extended(ROW(place), 0) IN (SELECT unnest(%(keys)s::bigint[]))) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
UNION
SELECT DISTINCT metadata ->> 'place' AS place, refold.plain(CAST((metadata ->> 'n') AS DECIMAL)) AS member__
FROM refold.events
WHERE position >= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
  AND true
  AND CASE WHEN CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
  AND event_id <> ALL (%(dead)s::text[]) THEN (action <> 'noise') END THEN hash_record_extended(ROW(metadata ->> 'place'), 0) END IN (SELECT unnest(%(keys)s::bigint[]))
  AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
  AND event_id <> ALL (%(dead)s::text[]) THEN CASE WHEN (action <> 'noise') THEN (refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) IS NOT NULL END END;

-- with a base: audit of refold_builds.visitors__1__m3
WITH expected AS MATERIALIZED (
    SELECT place, member__ FROM refold_builds.visitors__1__m3__base WHERE (true) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
    UNION
    SELECT DISTINCT metadata ->> 'place' AS place, user_id AS member__
    FROM refold.events
    WHERE position >= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
      AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
         OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
      AND event_id <> ALL (%(dead)s::text[]) THEN CASE WHEN (action <> 'noise') THEN CASE WHEN (action = 'buy') THEN (user_id) IS NOT NULL END END END
),
actual AS MATERIALIZED (
    SELECT place, member__ FROM refold_builds.visitors__1__m3 WHERE true
)
SELECT 'expected' AS side, hash_record_extended(ROW(place), 0) AS hash, (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice, jsonb_build_object('place', d__.place, 'member__', d__.member__) AS key, to_jsonb(d__) AS row
FROM (SELECT place, member__ FROM expected EXCEPT ALL SELECT place, member__ FROM actual) AS d__
UNION ALL
SELECT 'actual' AS side, hash_record_extended(ROW(place), 0) AS hash, (hash_record_extended(ROW(place), 0) >> 56)::integer AS slice, jsonb_build_object('place', d__.place, 'member__', d__.member__) AS key, to_jsonb(d__) AS row
FROM (SELECT place, member__ FROM actual EXCEPT ALL SELECT place, member__ FROM expected) AS d__;

-- with a base: healing of refold_builds.visitors__1__m3: insert
INSERT INTO refold_builds.visitors__1__m3 (place, member__)
SELECT place, member__ FROM refold_builds.visitors__1__m3__base WHERE ((true) AND hash_record_extended(ROW(place), 0) IN (SELECT unnest(%(keys)s::bigint[]))) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
UNION
SELECT DISTINCT metadata ->> 'place' AS place, user_id AS member__
FROM refold.events
WHERE position >= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'visitors__1')
  AND true
  AND CASE WHEN CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
  AND event_id <> ALL (%(dead)s::text[]) THEN (action <> 'noise') END THEN hash_record_extended(ROW(metadata ->> 'place'), 0) END IN (SELECT unnest(%(keys)s::bigint[]))
  AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
  AND event_id <> ALL (%(dead)s::text[]) THEN CASE WHEN (action <> 'noise') THEN CASE WHEN (action = 'buy') THEN (user_id) IS NOT NULL END END END;
