-- medians: recompute, because: PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY n) cannot be merged

-- create
CREATE TABLE refold_builds.medians__1 AS
SELECT
  refold.plain(user_id) AS user_id,
  COUNT(*) AS events,
  PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY
    refold.plain(n)) AS middle,
  ARRAY_AGG(action ORDER BY ts, event_id) AS path
FROM (
    SELECT event_id, user_id, action, ts, n
    FROM refold_builds.clicks__1
    WHERE true
) AS clicks
GROUP BY
  user_id
WITH NO DATA;

-- create
ALTER TABLE refold_builds.medians__1 ADD COLUMN before__ bigint;

-- create
CREATE STATISTICS refold_builds.medians__1__slice ON ((hash_record_extended(ROW(user_id), 0) >> 56)::integer) FROM refold_builds.medians__1;

-- indexes
CREATE UNIQUE INDEX medians__1__key ON refold_builds.medians__1 (user_id) NULLS NOT DISTINCT;

-- page
WITH page AS MATERIALIZED (
    SELECT * FROM (
        (SELECT txid, position, ordinal, event_id, user_id, action, ts, n
         FROM refold_builds.clicks__1
         WHERE txid = ANY (%(open)s::xid8[]) AND (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot))
           AND (txid, position, ordinal) > (%(after_txid)s::xid8, %(after_position)s::bigint, %(after_ordinal)s::integer)
           AND (txid, position, ordinal) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint, %(upto_ordinal)s::integer)
         ORDER BY txid, position, ordinal LIMIT %(limit)s::bigint)
        UNION ALL
        (SELECT txid, position, ordinal, event_id, user_id, action, ts, n
         FROM refold_builds.clicks__1
         WHERE (txid, position, ordinal) > (%(from_txid)s::xid8, %(from_position)s::bigint, %(from_ordinal)s::integer)
           AND (txid, position, ordinal) <= (%(to_txid)s::xid8, %(to_position)s::bigint, %(to_ordinal)s::integer) AND (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot))
         ORDER BY txid, position, ordinal LIMIT %(limit)s::bigint)
    ) AS unread
    ORDER BY txid, position, ordinal LIMIT %(limit)s::bigint
),
upto__ AS MATERIALIZED (
    SELECT txid, position, ordinal FROM page ORDER BY txid DESC, position DESC, ordinal DESC LIMIT 1
),
touched__ AS MATERIALIZED (
    SELECT DISTINCT hash_record_extended(ROW(user_id), 0) AS hash__ FROM page
),
fresh AS NOT MATERIALIZED (
    SELECT
      refold.plain(user_id) AS user_id,
      COUNT(*) AS events,
      PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY
        refold.plain(n)) AS middle,
      ARRAY_AGG(action ORDER BY ts, event_id) AS path
    FROM (
        SELECT e.event_id, e.user_id, e.action, e.ts, e.n
        FROM touched__
        CROSS JOIN LATERAL (
            SELECT event_id, user_id, action, ts, n FROM refold_builds.clicks__1
            WHERE hash_record_extended(ROW(user_id), 0) = touched__.hash__ AND event_id <> ALL (%(dead)s::text[])
              AND (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                   OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position, ordinal) <= (SELECT txid, position, ordinal FROM upto__)))
            OFFSET 0
        ) AS e
    ) AS clicks
    GROUP BY
      user_id
),
written AS (
    INSERT INTO refold_builds.medians__1 AS kept (user_id, events, middle, path)
    SELECT user_id, events, middle, path FROM fresh WHERE true
    ON CONFLICT (user_id) DO UPDATE SET events = excluded.events, middle = excluded.middle, path = excluded.path, before__ = hash_record_extended(ROW(kept.user_id, kept.events, kept.middle, kept.path), 8)
    WHERE ROW(kept.events, kept.middle, kept.path) IS DISTINCT FROM ROW(excluded.events, excluded.middle, excluded.path)
    RETURNING (hash_record_extended(ROW(user_id), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(user_id, events, middle, path), 8) AS new__, before__ AS old__
),
checksums AS (
    INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
    SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
    FROM (
        SELECT 0 AS relation, slice__ AS slice, count(*) - count(old__) AS rows, sum(new__) - coalesce(sum(old__), 0) AS hash FROM written GROUP BY slice__
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
     FROM refold_builds.clicks__1
     WHERE (txid, position, ordinal) > (%(after_txid)s::xid8, %(after_position)s::bigint, %(after_ordinal)s::integer)
       AND (txid, position, ordinal) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint, %(upto_ordinal)s::integer)
     ORDER BY txid, position, ordinal OFFSET %(limit)s::bigint - 1 LIMIT 1)
    UNION ALL
    SELECT %(upto_txid)s::xid8, %(upto_position)s::bigint, %(upto_ordinal)s::integer, false
    ORDER BY full_page DESC LIMIT 1
),
page AS NOT MATERIALIZED (
    SELECT txid, position, ordinal, event_id, user_id, action, ts, n
    FROM refold_builds.clicks__1
    WHERE (txid, position, ordinal) > (%(after_txid)s::xid8, %(after_position)s::bigint, %(after_ordinal)s::integer)
      AND (txid, position, ordinal) <= ((SELECT txid FROM upto__), (SELECT position FROM upto__), (SELECT ordinal FROM upto__))
      AND txid <= (SELECT txid FROM upto__)
),
touched__ AS MATERIALIZED (
    SELECT DISTINCT hash_record_extended(ROW(user_id), 0) AS hash__ FROM page
),
fresh AS NOT MATERIALIZED (
    SELECT
      refold.plain(user_id) AS user_id,
      COUNT(*) AS events,
      PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY
        refold.plain(n)) AS middle,
      ARRAY_AGG(action ORDER BY ts, event_id) AS path
    FROM (
        SELECT e.event_id, e.user_id, e.action, e.ts, e.n
        FROM touched__
        CROSS JOIN LATERAL (
            SELECT event_id, user_id, action, ts, n FROM refold_builds.clicks__1
            WHERE hash_record_extended(ROW(user_id), 0) = touched__.hash__ AND event_id <> ALL (%(dead)s::text[])
              AND (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                   OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position, ordinal) <= (SELECT txid, position, ordinal FROM upto__)))
            OFFSET 0
        ) AS e
    ) AS clicks
    GROUP BY
      user_id
),
written AS (
    INSERT INTO refold_builds.medians__1 AS kept (user_id, events, middle, path)
    SELECT user_id, events, middle, path FROM fresh WHERE true
    ON CONFLICT (user_id) DO UPDATE SET events = excluded.events, middle = excluded.middle, path = excluded.path, before__ = hash_record_extended(ROW(kept.user_id, kept.events, kept.middle, kept.path), 8)
    WHERE ROW(kept.events, kept.middle, kept.path) IS DISTINCT FROM ROW(excluded.events, excluded.middle, excluded.path)
    RETURNING (hash_record_extended(ROW(user_id), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(user_id, events, middle, path), 8) AS new__, before__ AS old__
),
checksums AS (
    INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
    SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
    FROM (
        SELECT 0 AS relation, slice__ AS slice, count(*) - count(old__) AS rows, sum(new__) - coalesce(sum(old__), 0) AS hash FROM written GROUP BY slice__
        UNION ALL
        SELECT -1 AS relation, refold.position_slice(position) AS slice, count(*) AS rows, sum(hashint8extended(position, ordinal)) AS hash FROM (
            SELECT position, ordinal
            FROM refold_builds.clicks__1
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
INSERT INTO refold_builds.medians__1 (user_id, events, middle, path)
SELECT
  refold.plain(user_id) AS user_id,
  COUNT(*) AS events,
  PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY
    refold.plain(n)) AS middle,
  ARRAY_AGG(action ORDER BY ts, event_id) AS path
FROM (
    SELECT event_id, user_id, action, ts, n
    FROM refold_builds.clicks__1
    WHERE (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
      AND (%(steps)s::integer = 1 OR (hash_record_extended(ROW(user_id), 0) & 2147483647) %% %(steps)s::integer = %(step)s::integer)
) AS clicks
GROUP BY
  user_id;

-- audit of refold_builds.medians__1
WITH expected AS MATERIALIZED (
    SELECT
      refold.plain(user_id) AS user_id,
      COUNT(*) AS events,
      PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY
        refold.plain(n)) AS middle,
      ARRAY_AGG(action ORDER BY ts, event_id) AS path
    FROM (
        SELECT event_id, user_id, action, ts, n
        FROM refold_builds.clicks__1
        WHERE (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
             OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position, ordinal) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint, %(progress_ordinal)s::integer)))
          AND event_id <> ALL (%(dead)s::text[])
        OFFSET 0
    ) AS clicks
    GROUP BY
      user_id
),
actual AS MATERIALIZED (
    SELECT user_id, events, middle, path FROM refold_builds.medians__1 WHERE true
)
SELECT 'expected' AS side, hash_record_extended(ROW(user_id), 0) AS hash, (hash_record_extended(ROW(user_id), 0) >> 56)::integer AS slice, jsonb_build_object('user_id', d__.user_id) AS key, to_jsonb(d__) AS row
FROM (SELECT user_id, events, middle, path FROM expected EXCEPT ALL SELECT user_id, events, middle, path FROM actual) AS d__
UNION ALL
SELECT 'actual' AS side, hash_record_extended(ROW(user_id), 0) AS hash, (hash_record_extended(ROW(user_id), 0) >> 56)::integer AS slice, jsonb_build_object('user_id', d__.user_id) AS key, to_jsonb(d__) AS row
FROM (SELECT user_id, events, middle, path FROM actual EXCEPT ALL SELECT user_id, events, middle, path FROM expected) AS d__;

-- healing of refold_builds.medians__1: delete
DELETE FROM refold_builds.medians__1 WHERE (true) AND hash_record_extended(ROW(user_id), 0) IN (SELECT unnest(%(keys)s::bigint[]));

-- healing of refold_builds.medians__1: insert
INSERT INTO refold_builds.medians__1 (user_id, events, middle, path)
SELECT
  refold.plain(user_id) AS user_id,
  COUNT(*) AS events,
  PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY
    refold.plain(n)) AS middle,
  ARRAY_AGG(action ORDER BY ts, event_id) AS path
FROM (
    SELECT event_id, user_id, action, ts, n
    FROM refold_builds.clicks__1
    WHERE (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
         OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position, ordinal) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint, %(progress_ordinal)s::integer)))
      AND event_id <> ALL (%(dead)s::text[])
      AND true
      AND hash_record_extended(ROW(user_id), 0) IN (SELECT unnest(%(keys)s::bigint[]))
    OFFSET 0
) AS clicks
GROUP BY
  user_id;

-- view
SELECT user_id, events, middle, path FROM refold_builds.medians__1;

-- load_apart
INSERT INTO refold_builds.medians__1 (user_id, events, middle, path)
SELECT
  refold.plain(user_id) AS user_id,
  COUNT(*) AS events,
  PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY
    refold.plain(n)) AS middle,
  ARRAY_AGG(action ORDER BY ts, event_id) AS path
FROM (
    SELECT event_id, user_id, action, ts, n
    FROM refold_builds.clicks__1
    WHERE (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
      AND (%(steps)s::integer = 1 OR (hash_record_extended(ROW(user_id), 0) & 2147483647) %% %(steps)s::integer = %(step)s::integer)
    OFFSET 0
) AS clicks
GROUP BY
  user_id;

-- probe
INSERT INTO refold_builds.medians__1 (user_id, events, middle, path)
SELECT
  refold.plain(user_id) AS user_id,
  COUNT(*) AS events,
  PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY
    refold.plain(n)) AS middle,
  ARRAY_AGG(action ORDER BY ts, event_id) AS path
FROM (
    SELECT event_id, user_id, action, ts, n
    FROM refold_builds.clicks__1
    WHERE CASE WHEN (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
      AND (%(whole)s::boolean OR
           ((txid, position, ordinal) > (%(after_txid)s::xid8, %(after_position)s::bigint, %(after_ordinal)s::integer) AND (txid, position, ordinal) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint, %(upto_ordinal)s::integer))) THEN (%(steps)s::integer = 1 OR (hash_record_extended(ROW(user_id), 0) & 2147483647) %% %(steps)s::integer >= %(step)s::integer) END
    OFFSET 0
) AS clicks
GROUP BY
  user_id;

-- probe
CREATE UNIQUE INDEX medians__1__key ON refold_builds.medians__1 (user_id) NULLS NOT DISTINCT;

-- probe_keys
INSERT INTO refold_builds.medians__1 (user_id, events, middle, path)
SELECT
  refold.plain(user_id) AS user_id,
  COUNT(*) AS events,
  PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY
    refold.plain(n)) AS middle,
  ARRAY_AGG(action ORDER BY ts, event_id) AS path
FROM (
    SELECT event_id, user_id, action, ts, n
    FROM refold_builds.clicks__1
    WHERE CASE WHEN (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
      AND (%(whole)s::boolean OR
           ((txid, position, ordinal) > (%(after_txid)s::xid8, %(after_position)s::bigint, %(after_ordinal)s::integer) AND (txid, position, ordinal) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint, %(upto_ordinal)s::integer))) THEN hash_record_extended(ROW(user_id), 0) IN (SELECT unnest(%(keys)s::bigint[])) END
    OFFSET 0
) AS clicks
GROUP BY
  user_id;

-- probe_keys
CREATE UNIQUE INDEX medians__1__key ON refold_builds.medians__1 (user_id) NULLS NOT DISTINCT;

-- keys_left
SELECT DISTINCT hash_record_extended(ROW(user_id), 0)
FROM refold_builds.clicks__1
WHERE CASE WHEN (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
  AND (%(whole)s::boolean OR
       ((txid, position, ordinal) > (%(after_txid)s::xid8, %(after_position)s::bigint, %(after_ordinal)s::integer) AND (txid, position, ordinal) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint, %(upto_ordinal)s::integer))) THEN (%(steps)s::integer = 1 OR (hash_record_extended(ROW(user_id), 0) & 2147483647) %% %(steps)s::integer >= %(step)s::integer) END;

-- events_of_keys
SELECT event_id, txid::text::bigint, position, ordinal
FROM refold_builds.clicks__1
WHERE CASE WHEN (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
  AND (%(whole)s::boolean OR
       ((txid, position, ordinal) > (%(after_txid)s::xid8, %(after_position)s::bigint, %(after_ordinal)s::integer) AND (txid, position, ordinal) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint, %(upto_ordinal)s::integer))) THEN hash_record_extended(ROW(user_id), 0) IN (SELECT unnest(%(keys)s::bigint[])) END
ORDER BY txid, position, ordinal;

-- the key's index on the stream
CREATE INDEX IF NOT EXISTS key_index ON refold_builds.clicks__1 ((hash_record_extended(ROW(user_id), 0)));
