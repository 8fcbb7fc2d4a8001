-- sessions: recompute, because: the query has more than one level, a window or a join

-- create
CREATE TABLE refold_builds.sessions__1 AS
WITH marked AS (
  SELECT
    user_id,
    event_id,
    ts,
    CASE
      WHEN ts - LAG(ts) OVER (PARTITION BY user_id ORDER BY ts, event_id) <= CAST('30 minutes' AS INTERVAL)
      THEN 0
      ELSE 1
    END AS starts
  FROM (
    SELECT event_id, user_id, ts
    FROM refold.events
    WHERE true
) AS events
  WHERE
    user_id IS NOT NULL
), numbered AS (
  SELECT
    user_id,
    ts,
    SUM(starts) OVER (PARTITION BY user_id ORDER BY ts, event_id) AS session
  FROM marked
)
SELECT
  user_id,
  refold.plain(session) AS session,
  MIN(ts) AS started_at,
  MAX(ts) AS ended_at,
  COUNT(*) AS events
FROM numbered
GROUP BY
  user_id,
  session
WITH NO DATA;

-- create
CREATE STATISTICS refold_builds.sessions__1__slice ON ((hash_record_extended(ROW(user_id), 0) >> 56)::integer) FROM refold_builds.sessions__1;

-- indexes
CREATE INDEX sessions__1__key ON refold_builds.sessions__1 (user_id);

-- indexes
CREATE INDEX sessions__1__hash ON refold_builds.sessions__1 ((hash_record_extended(ROW(user_id), 0)));

-- page
WITH page AS MATERIALIZED (
    SELECT * FROM (
        (SELECT txid, position, 0 AS ordinal, event_id, user_id, ts
         FROM refold.events
         WHERE txid = ANY (%(open)s::xid8[]) AND (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot))
           AND (txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint)
           AND (txid, position) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint)
         ORDER BY txid, position LIMIT %(limit)s::bigint)
        UNION ALL
        (SELECT txid, position, 0 AS ordinal, event_id, user_id, ts
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
touched__ AS MATERIALIZED (
    SELECT DISTINCT hash_record_extended(ROW(user_id), 0) AS hash__ FROM page
),
fresh AS MATERIALIZED (
    WITH marked AS (
      SELECT
        user_id,
        event_id,
        ts,
        CASE
          WHEN ts - LAG(ts) OVER (PARTITION BY user_id ORDER BY ts, event_id) <= CAST('30 minutes' AS INTERVAL)
          THEN 0
          ELSE 1
        END AS starts
      FROM (
        SELECT e.event_id, e.user_id, e.ts
        FROM touched__
        CROSS JOIN LATERAL (
            SELECT event_id, user_id, ts FROM refold.events
            WHERE hash_record_extended(ROW(user_id), 0) = touched__.hash__ AND event_id <> ALL (%(dead)s::text[])
              AND (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                   OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (SELECT txid, position FROM upto__)))
            OFFSET 0
        ) AS e
    ) AS events
      WHERE
        user_id IS NOT NULL
    ), numbered AS (
      SELECT
        user_id,
        ts,
        SUM(starts) OVER (PARTITION BY user_id ORDER BY ts, event_id) AS session
      FROM marked
    )
    SELECT
      user_id,
      refold.plain(session) AS session,
      MIN(ts) AS started_at,
      MAX(ts) AS ended_at,
      COUNT(*) AS events
    FROM numbered
    GROUP BY
      user_id,
      session
),
gone AS (
    DELETE FROM refold_builds.sessions__1 WHERE hash_record_extended(ROW(user_id), 0) IN (SELECT hash__ FROM touched__)
    RETURNING (hash_record_extended(ROW(user_id), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(user_id, session, started_at, ended_at, events), 8) AS new__
),
written AS (
    INSERT INTO refold_builds.sessions__1 (user_id, session, started_at, ended_at, events)
    SELECT user_id, session, started_at, ended_at, events FROM fresh
    WHERE (SELECT count(*) FROM gone) >= 0
    RETURNING (hash_record_extended(ROW(user_id), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(user_id, session, started_at, ended_at, events), 8) AS new__
),
checksums AS (
    INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
    SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
    FROM (
        SELECT 0 AS relation, slice__ AS slice, -count(*) AS rows, -sum(new__) AS hash FROM gone GROUP BY slice__
        UNION ALL
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
    SELECT txid, position, 0 AS ordinal, event_id, user_id, ts
    FROM refold.events
    WHERE (txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint)
      AND (txid, position) <= ((SELECT txid FROM upto__), (SELECT position FROM upto__))
      AND txid <= (SELECT txid FROM upto__)
),
touched__ AS MATERIALIZED (
    SELECT DISTINCT hash_record_extended(ROW(user_id), 0) AS hash__ FROM page
),
fresh AS MATERIALIZED (
    WITH marked AS (
      SELECT
        user_id,
        event_id,
        ts,
        CASE
          WHEN ts - LAG(ts) OVER (PARTITION BY user_id ORDER BY ts, event_id) <= CAST('30 minutes' AS INTERVAL)
          THEN 0
          ELSE 1
        END AS starts
      FROM (
        SELECT e.event_id, e.user_id, e.ts
        FROM touched__
        CROSS JOIN LATERAL (
            SELECT event_id, user_id, ts FROM refold.events
            WHERE hash_record_extended(ROW(user_id), 0) = touched__.hash__ AND event_id <> ALL (%(dead)s::text[])
              AND (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                   OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (SELECT txid, position FROM upto__)))
            OFFSET 0
        ) AS e
    ) AS events
      WHERE
        user_id IS NOT NULL
    ), numbered AS (
      SELECT
        user_id,
        ts,
        SUM(starts) OVER (PARTITION BY user_id ORDER BY ts, event_id) AS session
      FROM marked
    )
    SELECT
      user_id,
      refold.plain(session) AS session,
      MIN(ts) AS started_at,
      MAX(ts) AS ended_at,
      COUNT(*) AS events
    FROM numbered
    GROUP BY
      user_id,
      session
),
gone AS (
    DELETE FROM refold_builds.sessions__1 WHERE hash_record_extended(ROW(user_id), 0) IN (SELECT hash__ FROM touched__)
    RETURNING (hash_record_extended(ROW(user_id), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(user_id, session, started_at, ended_at, events), 8) AS new__
),
written AS (
    INSERT INTO refold_builds.sessions__1 (user_id, session, started_at, ended_at, events)
    SELECT user_id, session, started_at, ended_at, events FROM fresh
    WHERE (SELECT count(*) FROM gone) >= 0
    RETURNING (hash_record_extended(ROW(user_id), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(user_id, session, started_at, ended_at, events), 8) AS new__
),
checksums AS (
    INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
    SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
    FROM (
        SELECT 0 AS relation, slice__ AS slice, -count(*) AS rows, -sum(new__) AS hash FROM gone GROUP BY slice__
        UNION ALL
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
INSERT INTO refold_builds.sessions__1 (user_id, session, started_at, ended_at, events)
WITH marked AS (
  SELECT
    user_id,
    event_id,
    ts,
    CASE
      WHEN ts - LAG(ts) OVER (PARTITION BY user_id ORDER BY ts, event_id) <= CAST('30 minutes' AS INTERVAL)
      THEN 0
      ELSE 1
    END AS starts
  FROM (
    SELECT event_id, user_id, ts
    FROM refold.events
    WHERE (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
      AND (%(steps)s::integer = 1 OR (hash_record_extended(ROW(user_id), 0) & 2147483647) %% %(steps)s::integer = %(step)s::integer)
) AS events
  WHERE
    user_id IS NOT NULL
), numbered AS (
  SELECT
    user_id,
    ts,
    SUM(starts) OVER (PARTITION BY user_id ORDER BY ts, event_id) AS session
  FROM marked
)
SELECT
  user_id,
  refold.plain(session) AS session,
  MIN(ts) AS started_at,
  MAX(ts) AS ended_at,
  COUNT(*) AS events
FROM numbered
GROUP BY
  user_id,
  session;

-- audit of refold_builds.sessions__1
WITH expected AS MATERIALIZED (
    WITH marked AS (
      SELECT
        user_id,
        event_id,
        ts,
        CASE
          WHEN ts - LAG(ts) OVER (PARTITION BY user_id ORDER BY ts, event_id) <= CAST('30 minutes' AS INTERVAL)
          THEN 0
          ELSE 1
        END AS starts
      FROM (
        SELECT event_id, user_id, ts
        FROM refold.events
        WHERE (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
             OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
          AND event_id <> ALL (%(dead)s::text[])
        OFFSET 0
    ) AS events
      WHERE
        user_id IS NOT NULL
    ), numbered AS (
      SELECT
        user_id,
        ts,
        SUM(starts) OVER (PARTITION BY user_id ORDER BY ts, event_id) AS session
      FROM marked
    )
    SELECT
      user_id,
      refold.plain(session) AS session,
      MIN(ts) AS started_at,
      MAX(ts) AS ended_at,
      COUNT(*) AS events
    FROM numbered
    GROUP BY
      user_id,
      session
),
actual AS MATERIALIZED (
    SELECT user_id, session, started_at, ended_at, events FROM refold_builds.sessions__1 WHERE true
)
SELECT 'expected' AS side, hash_record_extended(ROW(user_id), 0) AS hash, (hash_record_extended(ROW(user_id), 0) >> 56)::integer AS slice, jsonb_build_object('user_id', d__.user_id) AS key, to_jsonb(d__) AS row
FROM (SELECT user_id, session, started_at, ended_at, events FROM expected EXCEPT ALL SELECT user_id, session, started_at, ended_at, events FROM actual) AS d__
UNION ALL
SELECT 'actual' AS side, hash_record_extended(ROW(user_id), 0) AS hash, (hash_record_extended(ROW(user_id), 0) >> 56)::integer AS slice, jsonb_build_object('user_id', d__.user_id) AS key, to_jsonb(d__) AS row
FROM (SELECT user_id, session, started_at, ended_at, events FROM actual EXCEPT ALL SELECT user_id, session, started_at, ended_at, events FROM expected) AS d__;

-- healing of refold_builds.sessions__1: delete
DELETE FROM refold_builds.sessions__1 WHERE (true) AND hash_record_extended(ROW(user_id), 0) IN (SELECT unnest(%(keys)s::bigint[]));

-- healing of refold_builds.sessions__1: insert
INSERT INTO refold_builds.sessions__1 (user_id, session, started_at, ended_at, events)
WITH marked AS (
  SELECT
    user_id,
    event_id,
    ts,
    CASE
      WHEN ts - LAG(ts) OVER (PARTITION BY user_id ORDER BY ts, event_id) <= CAST('30 minutes' AS INTERVAL)
      THEN 0
      ELSE 1
    END AS starts
  FROM (
    SELECT event_id, user_id, ts
    FROM refold.events
    WHERE (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
         OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
      AND event_id <> ALL (%(dead)s::text[])
      AND true
      AND hash_record_extended(ROW(user_id), 0) IN (SELECT unnest(%(keys)s::bigint[]))
    OFFSET 0
) AS events
  WHERE
    user_id IS NOT NULL
), numbered AS (
  SELECT
    user_id,
    ts,
    SUM(starts) OVER (PARTITION BY user_id ORDER BY ts, event_id) AS session
  FROM marked
)
SELECT
  user_id,
  refold.plain(session) AS session,
  MIN(ts) AS started_at,
  MAX(ts) AS ended_at,
  COUNT(*) AS events
FROM numbered
GROUP BY
  user_id,
  session;

-- view
SELECT user_id, session, started_at, ended_at, events FROM refold_builds.sessions__1;

-- load_apart
INSERT INTO refold_builds.sessions__1 (user_id, session, started_at, ended_at, events)
WITH marked AS (
  SELECT
    user_id,
    event_id,
    ts,
    CASE
      WHEN ts - LAG(ts) OVER (PARTITION BY user_id ORDER BY ts, event_id) <= CAST('30 minutes' AS INTERVAL)
      THEN 0
      ELSE 1
    END AS starts
  FROM (
    SELECT event_id, user_id, ts
    FROM refold.events
    WHERE (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
      AND (%(steps)s::integer = 1 OR (hash_record_extended(ROW(user_id), 0) & 2147483647) %% %(steps)s::integer = %(step)s::integer)
    OFFSET 0
) AS events
  WHERE
    user_id IS NOT NULL
), numbered AS (
  SELECT
    user_id,
    ts,
    SUM(starts) OVER (PARTITION BY user_id ORDER BY ts, event_id) AS session
  FROM marked
)
SELECT
  user_id,
  refold.plain(session) AS session,
  MIN(ts) AS started_at,
  MAX(ts) AS ended_at,
  COUNT(*) AS events
FROM numbered
GROUP BY
  user_id,
  session;

-- probe
INSERT INTO refold_builds.sessions__1 (user_id, session, started_at, ended_at, events)
WITH marked AS (
  SELECT
    user_id,
    event_id,
    ts,
    CASE
      WHEN ts - LAG(ts) OVER (PARTITION BY user_id ORDER BY ts, event_id) <= CAST('30 minutes' AS INTERVAL)
      THEN 0
      ELSE 1
    END AS starts
  FROM (
    SELECT event_id, user_id, ts
    FROM refold.events
    WHERE CASE WHEN (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
      AND (%(whole)s::boolean OR
           ((txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint) AND (txid, position) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint))) THEN (%(steps)s::integer = 1 OR (hash_record_extended(ROW(user_id), 0) & 2147483647) %% %(steps)s::integer >= %(step)s::integer) END
    OFFSET 0
) AS events
  WHERE
    user_id IS NOT NULL
), numbered AS (
  SELECT
    user_id,
    ts,
    SUM(starts) OVER (PARTITION BY user_id ORDER BY ts, event_id) AS session
  FROM marked
)
SELECT
  user_id,
  refold.plain(session) AS session,
  MIN(ts) AS started_at,
  MAX(ts) AS ended_at,
  COUNT(*) AS events
FROM numbered
GROUP BY
  user_id,
  session;

-- probe
CREATE INDEX sessions__1__key ON refold_builds.sessions__1 (user_id);

-- probe
CREATE INDEX sessions__1__hash ON refold_builds.sessions__1 ((hash_record_extended(ROW(user_id), 0)));

-- probe_keys
INSERT INTO refold_builds.sessions__1 (user_id, session, started_at, ended_at, events)
WITH marked AS (
  SELECT
    user_id,
    event_id,
    ts,
    CASE
      WHEN ts - LAG(ts) OVER (PARTITION BY user_id ORDER BY ts, event_id) <= CAST('30 minutes' AS INTERVAL)
      THEN 0
      ELSE 1
    END AS starts
  FROM (
    SELECT event_id, user_id, ts
    FROM refold.events
    WHERE CASE WHEN (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
      AND (%(whole)s::boolean OR
           ((txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint) AND (txid, position) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint))) THEN hash_record_extended(ROW(user_id), 0) IN (SELECT unnest(%(keys)s::bigint[])) END
    OFFSET 0
) AS events
  WHERE
    user_id IS NOT NULL
), numbered AS (
  SELECT
    user_id,
    ts,
    SUM(starts) OVER (PARTITION BY user_id ORDER BY ts, event_id) AS session
  FROM marked
)
SELECT
  user_id,
  refold.plain(session) AS session,
  MIN(ts) AS started_at,
  MAX(ts) AS ended_at,
  COUNT(*) AS events
FROM numbered
GROUP BY
  user_id,
  session;

-- probe_keys
CREATE INDEX sessions__1__key ON refold_builds.sessions__1 (user_id);

-- probe_keys
CREATE INDEX sessions__1__hash ON refold_builds.sessions__1 ((hash_record_extended(ROW(user_id), 0)));

-- keys_left
SELECT DISTINCT hash_record_extended(ROW(user_id), 0)
FROM refold.events
WHERE CASE WHEN (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
  AND (%(whole)s::boolean OR
       ((txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint) AND (txid, position) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint))) THEN (%(steps)s::integer = 1 OR (hash_record_extended(ROW(user_id), 0) & 2147483647) %% %(steps)s::integer >= %(step)s::integer) END;

-- events_of_keys
SELECT event_id, txid::text::bigint, position, 0
FROM refold.events
WHERE CASE WHEN (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
  AND (%(whole)s::boolean OR
       ((txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint) AND (txid, position) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint))) THEN hash_record_extended(ROW(user_id), 0) IN (SELECT unnest(%(keys)s::bigint[])) END
ORDER BY txid, position;

-- the key's index on the stream
CREATE INDEX IF NOT EXISTS key_index ON refold.events ((hash_record_extended(ROW(user_id), 0)));
