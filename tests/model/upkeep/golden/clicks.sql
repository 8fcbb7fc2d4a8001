-- clicks: facts, because: no GROUP BY: a row per event

-- create
CREATE TABLE refold_builds.clicks__1 AS
SELECT txid,
       position,
       0 AS ordinal,
       event_id,
       user_id AS user_id,
       action AS action,
       ts AS ts,
       CAST((metadata ->> 'n') AS DECIMAL) AS n
FROM refold.events
WHERE (action <> 'noise')
WITH NO DATA;

-- create
ALTER TABLE refold_builds.clicks__1 ALTER txid SET NOT NULL, ALTER position SET NOT NULL, ALTER ordinal SET NOT NULL, ALTER event_id SET NOT NULL;

-- create
CREATE STATISTICS refold_builds.clicks__1__slice ON (refold.position_slice(position)) FROM refold_builds.clicks__1;

-- indexes
CREATE UNIQUE INDEX clicks__1__id ON refold_builds.clicks__1 (event_id);

-- indexes
CREATE UNIQUE INDEX clicks__1__at ON refold_builds.clicks__1 (txid, position, ordinal);

-- indexes
SELECT refold.index_ranges('refold_builds.clicks__1', 'clicks__1__range');

-- page
WITH page AS MATERIALIZED (
    SELECT * FROM (
        (SELECT txid, position, 0 AS ordinal, event_id, user_id, action, ts, metadata
         FROM refold.events
         WHERE txid = ANY (%(open)s::xid8[]) AND (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot))
           AND (txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint)
           AND (txid, position) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint)
         ORDER BY txid, position LIMIT %(limit)s::bigint)
        UNION ALL
        (SELECT txid, position, 0 AS ordinal, event_id, user_id, action, ts, metadata
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
    INSERT INTO refold_builds.clicks__1 (txid, position, ordinal, event_id, user_id, action, ts, n)
    SELECT txid,
           position,
           ordinal AS ordinal,
           event_id,
           user_id AS user_id,
           action AS action,
           ts AS ts,
           CAST((metadata ->> 'n') AS DECIMAL) AS n
    FROM page
    WHERE (action <> 'noise')
    RETURNING refold.position_slice(position) AS slice__, hash_record_extended(ROW(txid, position, ordinal, event_id, user_id, action, ts, n), 8) AS new__
),
checksums AS (
    INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
    SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
    FROM (
        SELECT 0 AS relation, slice__ AS slice, count(*) AS rows, sum(new__) AS hash FROM written GROUP BY slice__
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
page AS NOT MATERIALIZED (
    SELECT txid, position, 0 AS ordinal, event_id, user_id, action, ts, metadata
    FROM refold.events
    WHERE (txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint)
      AND (txid, position) <= ((SELECT txid FROM upto__), (SELECT position FROM upto__))
      AND txid <= (SELECT txid FROM upto__)
),
written AS (
    INSERT INTO refold_builds.clicks__1 (txid, position, ordinal, event_id, user_id, action, ts, n)
    SELECT txid,
           position,
           ordinal AS ordinal,
           event_id,
           user_id AS user_id,
           action AS action,
           ts AS ts,
           CAST((metadata ->> 'n') AS DECIMAL) AS n
    FROM page
    WHERE (action <> 'noise')
    RETURNING refold.position_slice(position) AS slice__, hash_record_extended(ROW(txid, position, ordinal, event_id, user_id, action, ts, n), 8) AS new__
),
checksums AS (
    INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
    SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
    FROM (
        SELECT 0 AS relation, slice__ AS slice, count(*) AS rows, sum(new__) AS hash FROM written GROUP BY slice__
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
INSERT INTO refold_builds.clicks__1 (txid, position, ordinal, event_id, user_id, action, ts, n)
SELECT txid,
       position,
       0 AS ordinal,
       event_id,
       user_id AS user_id,
       action AS action,
       ts AS ts,
       CAST((metadata ->> 'n') AS DECIMAL) AS n
FROM refold.events
WHERE CASE WHEN (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
  AND (%(whole)s::boolean OR
       ((txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint) AND (txid, position) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint))) THEN (action <> 'noise') END;

-- audit of refold_builds.clicks__1
WITH expected AS MATERIALIZED (
    SELECT txid,
           position,
           0 AS ordinal,
           event_id,
           user_id AS user_id,
           action AS action,
           ts AS ts,
           CAST((metadata ->> 'n') AS DECIMAL) AS n
    FROM refold.events
    WHERE CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
         OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
      AND event_id <> ALL (%(dead)s::text[]) THEN (action <> 'noise') END
),
actual AS MATERIALIZED (
    SELECT txid, position, ordinal, event_id, user_id, action, ts, n FROM refold_builds.clicks__1 WHERE true
)
SELECT 'expected' AS side, hash_record_extended(ROW(event_id), 0) AS hash, refold.position_slice(position) AS slice, jsonb_build_object('event_id', d__.event_id) AS key, to_jsonb(d__) AS row
FROM (SELECT txid, position, ordinal, event_id, user_id, action, ts, n FROM expected EXCEPT ALL SELECT txid, position, ordinal, event_id, user_id, action, ts, n FROM actual) AS d__
UNION ALL
SELECT 'actual' AS side, hash_record_extended(ROW(event_id), 0) AS hash, refold.position_slice(position) AS slice, jsonb_build_object('event_id', d__.event_id) AS key, to_jsonb(d__) AS row
FROM (SELECT txid, position, ordinal, event_id, user_id, action, ts, n FROM actual EXCEPT ALL SELECT txid, position, ordinal, event_id, user_id, action, ts, n FROM expected) AS d__;

-- healing of refold_builds.clicks__1: delete
DELETE FROM refold_builds.clicks__1 WHERE (true) AND hash_record_extended(ROW(event_id), 0) IN (SELECT unnest(%(keys)s::bigint[]));

-- healing of refold_builds.clicks__1: insert
INSERT INTO refold_builds.clicks__1 (txid, position, ordinal, event_id, user_id, action, ts, n)
SELECT txid,
       position,
       0 AS ordinal,
       event_id,
       user_id AS user_id,
       action AS action,
       ts AS ts,
       CAST((metadata ->> 'n') AS DECIMAL) AS n
FROM refold.events
WHERE true
  AND hash_record_extended(ROW(event_id), 0) IN (SELECT unnest(%(keys)s::bigint[]))
  AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
  AND event_id <> ALL (%(dead)s::text[]) THEN (action <> 'noise') END;

-- view
SELECT event_id, user_id, action, ts, n FROM refold_builds.clicks__1;

-- rows of purged events, of `another`
INSERT INTO refold_builds.clicks__1 (txid, position, ordinal, event_id, user_id, action, ts, n) SELECT txid, position, ordinal, event_id, user_id, action, ts, n FROM refold_builds.another
WHERE position < %(floor)s::bigint;

-- with a base: audit of refold_builds.clicks__1
WITH expected AS MATERIALIZED (
    SELECT txid,
           position,
           0 AS ordinal,
           event_id,
           user_id AS user_id,
           action AS action,
           ts AS ts,
           CAST((metadata ->> 'n') AS DECIMAL) AS n
    FROM refold.events
    WHERE CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
         OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
      AND event_id <> ALL (%(dead)s::text[]) THEN (action <> 'noise') END
),
actual AS MATERIALIZED (
    SELECT txid, position, ordinal, event_id, user_id, action, ts, n FROM refold_builds.clicks__1 WHERE (true) AND position >= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'clicks__1')
)
SELECT 'expected' AS side, hash_record_extended(ROW(event_id), 0) AS hash, refold.position_slice(position) AS slice, jsonb_build_object('event_id', d__.event_id) AS key, to_jsonb(d__) AS row
FROM (SELECT txid, position, ordinal, event_id, user_id, action, ts, n FROM expected EXCEPT ALL SELECT txid, position, ordinal, event_id, user_id, action, ts, n FROM actual) AS d__
UNION ALL
SELECT 'actual' AS side, hash_record_extended(ROW(event_id), 0) AS hash, refold.position_slice(position) AS slice, jsonb_build_object('event_id', d__.event_id) AS key, to_jsonb(d__) AS row
FROM (SELECT txid, position, ordinal, event_id, user_id, action, ts, n FROM actual EXCEPT ALL SELECT txid, position, ordinal, event_id, user_id, action, ts, n FROM expected) AS d__;

-- with a base: healing of refold_builds.clicks__1: insert
INSERT INTO refold_builds.clicks__1 (txid, position, ordinal, event_id, user_id, action, ts, n)
SELECT txid,
       position,
       0 AS ordinal,
       event_id,
       user_id AS user_id,
       action AS action,
       ts AS ts,
       CAST((metadata ->> 'n') AS DECIMAL) AS n
FROM refold.events
WHERE true
  AND hash_record_extended(ROW(event_id), 0) IN (SELECT unnest(%(keys)s::bigint[]))
  AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
  AND event_id <> ALL (%(dead)s::text[]) THEN (action <> 'noise') END;
