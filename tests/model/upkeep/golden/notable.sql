-- notable: facts, because: no GROUP BY: a row per event

-- create
CREATE TABLE refold_builds.notable__1 AS
SELECT txid,
       position,
       ordinal AS ordinal,
       event_id,
       user_id AS user_id,
       UPPER(item) AS item,
       ts AS ts
FROM refold_builds.items__1
WHERE (item <> 'c')
WITH NO DATA;

-- create
ALTER TABLE refold_builds.notable__1 ALTER txid SET NOT NULL, ALTER position SET NOT NULL, ALTER ordinal SET NOT NULL, ALTER event_id SET NOT NULL;

-- create
CREATE STATISTICS refold_builds.notable__1__slice ON (refold.position_slice(position)) FROM refold_builds.notable__1;

-- indexes
CREATE UNIQUE INDEX notable__1__id ON refold_builds.notable__1 (event_id);

-- indexes
CREATE UNIQUE INDEX notable__1__at ON refold_builds.notable__1 (txid, position, ordinal);

-- indexes
SELECT refold.index_ranges('refold_builds.notable__1', 'notable__1__range');

-- page
WITH page AS MATERIALIZED (
    SELECT * FROM (
        (SELECT txid, position, ordinal, event_id, user_id, ts, item
         FROM refold_builds.items__1
         WHERE txid = ANY (%(open)s::xid8[]) AND (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot))
           AND (txid, position, ordinal) > (%(after_txid)s::xid8, %(after_position)s::bigint, %(after_ordinal)s::integer)
           AND (txid, position, ordinal) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint, %(upto_ordinal)s::integer)
         ORDER BY txid, position, ordinal LIMIT %(limit)s::bigint)
        UNION ALL
        (SELECT txid, position, ordinal, event_id, user_id, ts, item
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
    INSERT INTO refold_builds.notable__1 (txid, position, ordinal, event_id, user_id, item, ts)
    SELECT txid,
           position,
           ordinal AS ordinal,
           event_id,
           user_id AS user_id,
           UPPER(item) AS item,
           ts AS ts
    FROM page
    WHERE (item <> 'c')
    RETURNING refold.position_slice(position) AS slice__, hash_record_extended(ROW(txid, position, ordinal, event_id, user_id, item, ts), 8) AS new__
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
    SELECT txid, position, ordinal, event_id, user_id, ts, item
    FROM refold_builds.items__1
    WHERE (txid, position, ordinal) > (%(after_txid)s::xid8, %(after_position)s::bigint, %(after_ordinal)s::integer)
      AND (txid, position, ordinal) <= ((SELECT txid FROM upto__), (SELECT position FROM upto__), (SELECT ordinal FROM upto__))
      AND txid <= (SELECT txid FROM upto__)
),
written AS (
    INSERT INTO refold_builds.notable__1 (txid, position, ordinal, event_id, user_id, item, ts)
    SELECT txid,
           position,
           ordinal AS ordinal,
           event_id,
           user_id AS user_id,
           UPPER(item) AS item,
           ts AS ts
    FROM page
    WHERE (item <> 'c')
    RETURNING refold.position_slice(position) AS slice__, hash_record_extended(ROW(txid, position, ordinal, event_id, user_id, item, ts), 8) AS new__
),
checksums AS (
    INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
    SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
    FROM (
        SELECT 0 AS relation, slice__ AS slice, count(*) AS rows, sum(new__) AS hash FROM written GROUP BY slice__
        UNION ALL
        SELECT -1 AS relation, refold.position_slice(position) AS slice, count(*) AS rows, sum(hashint8extended(position, ordinal)) AS hash FROM (
            SELECT position, ordinal
            FROM refold_builds.items__1
            WHERE (txid, position, ordinal) > (%(after_txid)s::xid8, %(after_position)s::bigint, %(after_ordinal)s::integer)
              AND (txid, position, ordinal) <= ((SELECT txid FROM upto__), (SELECT position FROM upto__), (SELECT ordinal FROM upto__))
              AND txid <= (SELECT txid FROM upto__)
        ) AS page GROUP BY 2
    ) AS changes
    GROUP BY relation, slice
)
SELECT CASE WHEN (SELECT full_page FROM upto__) THEN %(limit)s::bigint ELSE (SELECT count(*) FROM page) END AS events,
       (SELECT txid::text::bigint FROM upto__) AS txid, (SELECT position FROM upto__), (SELECT ordinal FROM upto__);

-- load
INSERT INTO refold_builds.notable__1 (txid, position, ordinal, event_id, user_id, item, ts)
SELECT txid,
       position,
       ordinal AS ordinal,
       event_id,
       user_id AS user_id,
       UPPER(item) AS item,
       ts AS ts
FROM refold_builds.items__1
WHERE CASE WHEN (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
  AND (%(whole)s::boolean OR
       ((txid, position, ordinal) > (%(after_txid)s::xid8, %(after_position)s::bigint, %(after_ordinal)s::integer) AND (txid, position, ordinal) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint, %(upto_ordinal)s::integer))) THEN (item <> 'c') END;

-- audit of refold_builds.notable__1
WITH expected AS MATERIALIZED (
    SELECT txid,
           position,
           ordinal AS ordinal,
           event_id,
           user_id AS user_id,
           UPPER(item) AS item,
           ts AS ts
    FROM refold_builds.items__1
    WHERE CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
         OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position, ordinal) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint, %(progress_ordinal)s::integer)))
      AND event_id <> ALL (%(dead)s::text[]) THEN (item <> 'c') END
),
actual AS MATERIALIZED (
    SELECT txid, position, ordinal, event_id, user_id, item, ts FROM refold_builds.notable__1 WHERE true
)
SELECT 'expected' AS side, hash_record_extended(ROW(event_id), 0) AS hash, refold.position_slice(position) AS slice, jsonb_build_object('event_id', d__.event_id) AS key, to_jsonb(d__) AS row
FROM (SELECT txid, position, ordinal, event_id, user_id, item, ts FROM expected EXCEPT ALL SELECT txid, position, ordinal, event_id, user_id, item, ts FROM actual) AS d__
UNION ALL
SELECT 'actual' AS side, hash_record_extended(ROW(event_id), 0) AS hash, refold.position_slice(position) AS slice, jsonb_build_object('event_id', d__.event_id) AS key, to_jsonb(d__) AS row
FROM (SELECT txid, position, ordinal, event_id, user_id, item, ts FROM actual EXCEPT ALL SELECT txid, position, ordinal, event_id, user_id, item, ts FROM expected) AS d__;

-- healing of refold_builds.notable__1: delete
DELETE FROM refold_builds.notable__1 WHERE (true) AND hash_record_extended(ROW(event_id), 0) IN (SELECT unnest(%(keys)s::bigint[]));

-- healing of refold_builds.notable__1: insert
INSERT INTO refold_builds.notable__1 (txid, position, ordinal, event_id, user_id, item, ts)
SELECT txid,
       position,
       ordinal AS ordinal,
       event_id,
       user_id AS user_id,
       UPPER(item) AS item,
       ts AS ts
FROM refold_builds.items__1
WHERE true
  AND hash_record_extended(ROW(event_id), 0) IN (SELECT unnest(%(keys)s::bigint[]))
  AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position, ordinal) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint, %(progress_ordinal)s::integer)))
  AND event_id <> ALL (%(dead)s::text[]) THEN (item <> 'c') END;

-- view
SELECT event_id, user_id, item, ts FROM refold_builds.notable__1;
