-- seen: merge, because: every aggregate can be merged

-- create
CREATE TABLE refold_builds.seen__1 AS
SELECT user_id AS user_id,
       action AS action
FROM refold.events
GROUP BY 1, 2
WITH NO DATA;

-- create
CREATE STATISTICS refold_builds.seen__1__slice ON ((hash_record_extended(ROW(user_id, action), 0) >> 56)::integer) FROM refold_builds.seen__1;

-- keys
CREATE UNIQUE INDEX seen__1__key ON refold_builds.seen__1 (user_id, action) NULLS NOT DISTINCT;

-- page
WITH page AS MATERIALIZED (
    SELECT * FROM (
        (SELECT txid, position, 0 AS ordinal, user_id, action
         FROM refold.events
         WHERE txid = ANY (%(open)s::xid8[]) AND (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot))
           AND (txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint)
           AND (txid, position) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint)
         ORDER BY txid, position LIMIT %(limit)s::bigint)
        UNION ALL
        (SELECT txid, position, 0 AS ordinal, user_id, action
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
written AS (
    INSERT INTO refold_builds.seen__1 AS kept (user_id, action)
    SELECT user_id AS user_id,
           action AS action
    FROM page
    GROUP BY 1, 2
    ON CONFLICT (user_id, action) DO NOTHING
    RETURNING (hash_record_extended(ROW(user_id, action), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(user_id, action), 8) AS new__
),
checksums AS (
    INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
    SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
    FROM (
        SELECT 0 AS relation, slice__ AS slice, count(*) AS rows, sum(new__) AS hash FROM written GROUP BY slice__
        UNION ALL
        SELECT -1 AS relation, 0 AS slice, (SELECT count(*) FROM page) AS rows, 0 AS hash
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
page AS NOT MATERIALIZED (
    SELECT txid, position, 0 AS ordinal, user_id, action
    FROM refold.events
    WHERE (txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint)
      AND (txid, position) <= ((SELECT txid FROM upto__), (SELECT position FROM upto__))
      AND txid <= (SELECT txid FROM upto__)
),
written AS (
    INSERT INTO refold_builds.seen__1 AS kept (user_id, action)
    SELECT user_id AS user_id,
           action AS action
    FROM page
    GROUP BY 1, 2
    ON CONFLICT (user_id, action) DO NOTHING
    RETURNING (hash_record_extended(ROW(user_id, action), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(user_id, action), 8) AS new__
),
checksums AS (
    INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
    SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
    FROM (
        SELECT 0 AS relation, slice__ AS slice, count(*) AS rows, sum(new__) AS hash FROM written GROUP BY slice__
        UNION ALL
        SELECT -1 AS relation, 0 AS slice, CASE WHEN (SELECT full_page FROM upto__) THEN %(limit)s::bigint ELSE (SELECT count(*) FROM page) END AS rows, 0 AS hash
    ) AS changes
    GROUP BY relation, slice
)
SELECT CASE WHEN (SELECT full_page FROM upto__) THEN %(limit)s::bigint ELSE (SELECT count(*) FROM page) END AS events,
       (SELECT txid::text::bigint FROM upto__) AS txid, (SELECT position FROM upto__), (SELECT ordinal FROM upto__);

-- load
CREATE TEMPORARY TABLE delta ON COMMIT DROP AS
SELECT user_id AS user_id,
       action AS action
FROM refold.events
WHERE (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
  AND (%(whole)s::boolean OR
       ((txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint) AND (txid, position) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint)))
GROUP BY 1, 2;

-- load
INSERT INTO refold_builds.seen__1 AS kept (user_id, action)
SELECT user_id, action FROM delta WHERE true
ON CONFLICT (user_id, action) DO NOTHING;

-- audit of refold_builds.seen__1
WITH expected AS MATERIALIZED (
    SELECT user_id AS user_id,
           action AS action
    FROM refold.events
    WHERE (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
         OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
      AND event_id <> ALL (%(dead)s::text[])
    GROUP BY 1, 2
),
actual AS MATERIALIZED (
    SELECT user_id, action FROM refold_builds.seen__1 WHERE true
)
SELECT 'expected' AS side, hash_record_extended(ROW(user_id, action), 0) AS hash, (hash_record_extended(ROW(user_id, action), 0) >> 56)::integer AS slice, jsonb_build_object('user_id', d__.user_id, 'action', d__.action) AS key, to_jsonb(d__) AS row
FROM (SELECT user_id, action FROM expected EXCEPT ALL SELECT user_id, action FROM actual) AS d__
UNION ALL
SELECT 'actual' AS side, hash_record_extended(ROW(user_id, action), 0) AS hash, (hash_record_extended(ROW(user_id, action), 0) >> 56)::integer AS slice, jsonb_build_object('user_id', d__.user_id, 'action', d__.action) AS key, to_jsonb(d__) AS row
FROM (SELECT user_id, action FROM actual EXCEPT ALL SELECT user_id, action FROM expected) AS d__;

-- healing of refold_builds.seen__1: delete
DELETE FROM refold_builds.seen__1 WHERE (true) AND hash_record_extended(ROW(user_id, action), 0) IN (SELECT unnest(%(keys)s::bigint[]));

-- healing of refold_builds.seen__1: insert
INSERT INTO refold_builds.seen__1 (user_id, action)
SELECT user_id AS user_id,
       action AS action
FROM refold.events
WHERE true
  AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
  AND event_id <> ALL (%(dead)s::text[]) THEN hash_record_extended(ROW(user_id, action), 0) END IN (SELECT unnest(%(keys)s::bigint[]))
  AND (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
  AND event_id <> ALL (%(dead)s::text[])
GROUP BY 1, 2;

-- view
SELECT user_id, action FROM refold_builds.seen__1;

-- rows with the events in `arriving`
WITH excluded AS MATERIALIZED (
    SELECT user_id AS user_id,
           action AS action
    FROM arriving
    GROUP BY 1, 2
)
SELECT excluded.user_id,
       excluded.action
FROM excluded
LEFT JOIN (SELECT *, true AS there__ FROM refold_builds.seen__1) AS kept
    ON hash_record_extended(ROW(kept.user_id, kept.action), 0) = hash_record_extended(ROW(excluded.user_id, excluded.action), 0) AND kept.user_id IS NOT DISTINCT FROM excluded.user_id AND kept.action IS NOT DISTINCT FROM excluded.action;

-- base: create
CREATE TABLE refold_builds.seen__1__base AS SELECT user_id, action FROM refold_builds.seen__1 WITH NO DATA;

-- base: create
ALTER TABLE refold_builds.seen__1__base ADD COLUMN upto__ bigint NOT NULL;

-- base: create
CREATE UNIQUE INDEX seen__1__base__key ON refold_builds.seen__1__base (user_id, action, upto__) NULLS NOT DISTINCT;

-- base: create
CREATE INDEX seen__1__base__new ON refold_builds.seen__1__base (upto__) WHERE upto__ > 1;

-- base: create
CREATE STATISTICS refold_builds.seen__1__base__slice ON ((hash_record_extended(ROW(user_id, action), 0) >> 56)::integer) FROM refold_builds.seen__1__base;

-- base: fold the events in `arriving`
WITH read__ AS MATERIALIZED (
    SELECT * FROM arriving
    WHERE position >= %(lower)s::bigint AND position < %(upper)s::bigint
),
page AS (
    SELECT * FROM read__ WHERE event_id <> ALL (%(dead)s::text[])
),
written AS (
    INSERT INTO refold_builds.seen__1__base AS kept (user_id, action, upto__)
    SELECT user_id, action, %(upto)s::bigint FROM (
        SELECT user_id AS user_id,
               action AS action
        FROM page
        GROUP BY 1, 2
    ) AS delta WHERE true
    ON CONFLICT (user_id, action, upto__) DO NOTHING
    RETURNING (hash_record_extended(ROW(user_id, action), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(user_id, action, upto__), 8) AS new__
),
checksums AS (
    INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
    SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
    FROM (
        SELECT 1 AS relation, slice__ AS slice, count(*) AS rows, sum(new__) AS hash FROM written GROUP BY slice__
    ) AS changes
    GROUP BY relation, slice
)
SELECT count(*), coalesce(sum(hashint8extended(position, 0)), 0), coalesce(sum(hash_record_extended(ROW(txid, position, event_id, user_id, action, ts, metadata::text, version, recorded_at), 0)), 0) FROM read__;

-- base: undo
WITH gone_0 AS (
    DELETE FROM refold_builds.seen__1__base WHERE upto__ > %(floor)s::bigint AND upto__ > 1
    RETURNING (hash_record_extended(ROW(user_id, action), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(user_id, action, upto__), 8) AS new__
)
INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
FROM (
    SELECT 1 AS relation, slice__ AS slice, -count(*) AS rows, -sum(new__) AS hash FROM gone_0 GROUP BY slice__
) AS changes
GROUP BY relation, slice;

-- base: settle
WITH gone AS (
    DELETE FROM refold_builds.seen__1__base WHERE ctid = ANY (ARRAY(SELECT ctid FROM refold_builds.seen__1__base WHERE upto__ > 1 AND upto__ <= %(floor)s::bigint LIMIT %(limit)s::bigint))
    RETURNING (hash_record_extended(ROW(user_id, action), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(user_id, action, upto__), 8) AS new__, user_id, action
),
written AS (
    INSERT INTO refold_builds.seen__1__base AS kept (user_id, action, upto__)
    SELECT user_id, action, 1 FROM gone GROUP BY user_id, action
    ON CONFLICT (user_id, action, upto__) DO NOTHING
    RETURNING (hash_record_extended(ROW(user_id, action), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(user_id, action, upto__), 8) AS new__
),
checksums AS (
    INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
    SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
    FROM (
        SELECT 1 AS relation, slice__ AS slice, -count(*) AS rows, -sum(new__) AS hash FROM gone GROUP BY slice__
        UNION ALL
        SELECT 1 AS relation, slice__ AS slice, count(*) AS rows, sum(new__) AS hash FROM written GROUP BY slice__
    ) AS changes
    GROUP BY relation, slice
)
SELECT count(*) FROM gone;

-- base: copy that of `another`
WITH copied_0 AS (
    INSERT INTO refold_builds.seen__1__base (user_id, action, upto__)
    SELECT user_id, action, upto__ FROM refold_builds.another__base WHERE upto__ <= %(floor)s::bigint
)
SELECT;

-- base: load
INSERT INTO refold_builds.seen__1 (user_id, action)
SELECT (row__).user_id, (row__).action
FROM (
    SELECT ROW(user_id, action)::refold_builds.seen__1 AS row__
    FROM (
        SELECT user_id, action FROM refold_builds.seen__1__base WHERE (true) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'seen__1')
    ) AS parts
    GROUP BY user_id, action
) AS together;

-- with a base: audit of refold_builds.seen__1
WITH expected AS MATERIALIZED (
    SELECT (row__).user_id, (row__).action
    FROM (
        SELECT ROW(user_id, action)::refold_builds.seen__1 AS row__
        FROM (
            SELECT user_id, action FROM refold_builds.seen__1__base WHERE (true) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'seen__1')
            UNION ALL
            SELECT user_id, action FROM (
                SELECT user_id AS user_id,
                       action AS action
                FROM refold.events
                WHERE position >= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'seen__1')
                  AND (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
                  AND event_id <> ALL (%(dead)s::text[])
                GROUP BY 1, 2
            ) AS delta
        ) AS parts
        GROUP BY user_id, action
    ) AS together
),
actual AS MATERIALIZED (
    SELECT user_id, action FROM refold_builds.seen__1 WHERE true
)
SELECT 'expected' AS side, hash_record_extended(ROW(user_id, action), 0) AS hash, (hash_record_extended(ROW(user_id, action), 0) >> 56)::integer AS slice, jsonb_build_object('user_id', d__.user_id, 'action', d__.action) AS key, to_jsonb(d__) AS row
FROM (SELECT user_id, action FROM expected EXCEPT ALL SELECT user_id, action FROM actual) AS d__
UNION ALL
SELECT 'actual' AS side, hash_record_extended(ROW(user_id, action), 0) AS hash, (hash_record_extended(ROW(user_id, action), 0) >> 56)::integer AS slice, jsonb_build_object('user_id', d__.user_id, 'action', d__.action) AS key, to_jsonb(d__) AS row
FROM (SELECT user_id, action FROM actual EXCEPT ALL SELECT user_id, action FROM expected) AS d__;

-- with a base: healing of refold_builds.seen__1: insert
INSERT INTO refold_builds.seen__1 (user_id, action)
SELECT (row__).user_id, (row__).action
FROM (
    SELECT ROW(user_id, action)::refold_builds.seen__1 AS row__
    FROM (
        SELECT user_id, action FROM refold_builds.seen__1__base WHERE ((true) AND hash_record_extended(ROW(user_id, action), 0) IN (SELECT unnest(%(keys)s::bigint[]))) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'seen__1')
        UNION ALL
        SELECT user_id, action FROM (
            SELECT user_id AS user_id,
                   action AS action
            FROM refold.events
            WHERE position >= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'seen__1')
              AND true
              AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                 OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
              AND event_id <> ALL (%(dead)s::text[]) THEN hash_record_extended(ROW(user_id, action), 0) END IN (SELECT unnest(%(keys)s::bigint[]))
              AND (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                 OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
              AND event_id <> ALL (%(dead)s::text[])
            GROUP BY 1, 2
        ) AS delta
    ) AS parts
    GROUP BY user_id, action
) AS together;
