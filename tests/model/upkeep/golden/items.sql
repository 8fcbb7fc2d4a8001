-- items: transform, because: a Python function of one event

-- create
CREATE TABLE refold_builds.items__1 (txid xid8 NOT NULL, position bigint NOT NULL, ordinal integer NOT NULL, event_id text COLLATE "C" NOT NULL, user_id text COLLATE "C", ts timestamptz, item text COLLATE "C", place bigint);

-- create
CREATE STATISTICS refold_builds.items__1__slice ON (refold.position_slice(position)) FROM refold_builds.items__1;

-- indexes
CREATE UNIQUE INDEX items__1__id ON refold_builds.items__1 (event_id);

-- indexes
CREATE UNIQUE INDEX items__1__at ON refold_builds.items__1 (txid, position, ordinal);

-- indexes
SELECT refold.index_ranges('refold_builds.items__1', 'items__1__range');

-- page
SELECT page.txid::text::bigint AS txid, position, ordinal, event_id, user_id, action, ts, metadata, version, bytes__
FROM (
    SELECT *, sum(size) OVER (ORDER BY txid, position ROWS UNBOUNDED PRECEDING) AS bytes__
    FROM (
        SELECT *, pg_column_size(CASE WHEN coalesce(pg_column_compression(event_id), pg_column_compression(user_id), pg_column_compression(action), pg_column_compression(ts), pg_column_compression(metadata), pg_column_compression(version)) IS NULL THEN ROW(event_id, user_id, action, ts, metadata, version) ELSE ROW(ARRAY[event_id], ARRAY[user_id], ARRAY[action], ARRAY[ts], ARRAY[metadata], ARRAY[version]) END) AS size
        FROM (
            SELECT * FROM (
                (SELECT txid, position, 0 AS ordinal, event_id, user_id, action, ts, metadata, version
                 FROM refold.events
                 WHERE txid = ANY (%(open)s::xid8[]) AND (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot))
                   AND (txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint)
                   AND (txid, position) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint)
                 ORDER BY txid, position LIMIT %(limit)s::bigint)
                UNION ALL
                (SELECT txid, position, 0 AS ordinal, event_id, user_id, action, ts, metadata, version
                 FROM refold.events
                 WHERE (txid, position) > (%(from_txid)s::xid8, %(from_position)s::bigint)
                   AND (txid, position) <= (%(to_txid)s::xid8, %(to_position)s::bigint) AND (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot))
                 ORDER BY txid, position LIMIT %(limit)s::bigint)
            ) AS unread
            ORDER BY txid, position LIMIT %(limit)s::bigint
        ) AS unread OFFSET 0
    ) AS sized
) AS page
WHERE bytes__ - size < %(bytes)s::bigint
ORDER BY page.txid, page.position;

-- backlog
SELECT page.txid::text::bigint AS txid, position, ordinal, event_id, user_id, action, ts, metadata, version, bytes__
FROM (
    SELECT *, sum(size) OVER (ORDER BY txid, position ROWS UNBOUNDED PRECEDING) AS bytes__
    FROM (
        SELECT *, pg_column_size(CASE WHEN coalesce(pg_column_compression(event_id), pg_column_compression(user_id), pg_column_compression(action), pg_column_compression(ts), pg_column_compression(metadata), pg_column_compression(version)) IS NULL THEN ROW(event_id, user_id, action, ts, metadata, version) ELSE ROW(ARRAY[event_id], ARRAY[user_id], ARRAY[action], ARRAY[ts], ARRAY[metadata], ARRAY[version]) END) AS size
        FROM (
            SELECT txid, position, 0 AS ordinal, event_id, user_id, action, ts, metadata, version
            FROM refold.events
            WHERE (txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint)
              AND (txid, position) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint)
            ORDER BY txid, position LIMIT %(limit)s::bigint
        ) AS unread OFFSET 0
    ) AS sized
) AS page
WHERE bytes__ - size < %(bytes)s::bigint
ORDER BY page.txid, page.position;

-- load
COPY refold_builds.items__1 (txid, position, ordinal, event_id, user_id, ts, item, place) FROM STDIN;

-- audit of refold_builds.items__1
WITH expected AS MATERIALIZED (
    SELECT txid, position, ordinal, event_id, user_id, ts, item, place FROM pg_temp.expected_rows
),
actual AS MATERIALIZED (
    SELECT txid, position, ordinal, event_id, user_id, ts, item, place FROM refold_builds.items__1 WHERE true
)
SELECT 'expected' AS side, hash_record_extended(ROW(event_id), 0) AS hash, refold.position_slice(position) AS slice, jsonb_build_object('event_id', d__.event_id) AS key, to_jsonb(d__) AS row
FROM (SELECT txid, position, ordinal, event_id, user_id, ts, item, place FROM expected EXCEPT ALL SELECT txid, position, ordinal, event_id, user_id, ts, item, place FROM actual) AS d__
UNION ALL
SELECT 'actual' AS side, hash_record_extended(ROW(event_id), 0) AS hash, refold.position_slice(position) AS slice, jsonb_build_object('event_id', d__.event_id) AS key, to_jsonb(d__) AS row
FROM (SELECT txid, position, ordinal, event_id, user_id, ts, item, place FROM actual EXCEPT ALL SELECT txid, position, ordinal, event_id, user_id, ts, item, place FROM expected) AS d__;

-- healing of refold_builds.items__1: delete
DELETE FROM refold_builds.items__1 WHERE (true) AND hash_record_extended(ROW(event_id), 0) IN (SELECT unnest(%(keys)s::bigint[]));

-- healing of refold_builds.items__1: insert
INSERT INTO refold_builds.items__1 (txid, position, ordinal, event_id, user_id, ts, item, place)
SELECT txid, position, ordinal, event_id, user_id, ts, item, place FROM pg_temp.expected_rows;

-- view
SELECT user_id, ts, item, place FROM refold_builds.items__1;

-- checksums
WITH written AS (
    SELECT refold.position_slice(position) AS slice__, hash_record_extended(ROW(txid, position, ordinal, event_id, user_id, ts, item, place), 8) AS new__ FROM refold_builds.items__1 WHERE event_id = ANY (%(ids)s::text[])
)
INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
FROM (
    SELECT 0 AS relation, slice__ AS slice, count(*) AS rows, sum(new__) AS hash FROM written GROUP BY slice__
    UNION ALL
    SELECT -1 AS relation, refold.position_slice(position) AS slice, count(*) AS rows, sum(hashint8extended(position, ordinal)) AS hash FROM unnest(%(positions)s::bigint[], %(ordinals)s::integer[]) AS page (position, ordinal) GROUP BY 2
) AS changes
GROUP BY relation, slice;

-- rows of purged events, of `another`
INSERT INTO refold_builds.items__1 (txid, position, ordinal, event_id, user_id, ts, item, place) SELECT txid, position, ordinal, event_id, user_id, ts, item, place FROM refold_builds.another
WHERE position < %(floor)s::bigint;
