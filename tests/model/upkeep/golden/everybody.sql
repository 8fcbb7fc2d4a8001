-- everybody: funnel, because: the state of each funnel is kept, and every other aggregate can be merged

-- create
CREATE TABLE refold_builds.everybody__1 AS
SELECT scope,
       events,
       bought_at,
       level__state,
       times__state,
       get_byte(level__state, 0) AS level,
       refold.window_funnel_kept_times(times__state) AS times
FROM (
    SELECT CAST('all' AS TEXT) AS scope,
           COUNT(*) AS events,
           MAX(ts) FILTER(WHERE action = 'buy') AS bought_at,
           refold.window_funnel_fold(NULL, string_agg(refold.window_funnel_event(CAST('1 day' AS INTERVAL), ts, action = 'view', action IN ('view', 'buy'), action = 'buy', action = 'noise', action = 'buy', action = 'view', action = 'view', action = 'buy'), ''), 8, false) AS level__state,
           refold.window_funnel_fold(NULL, string_agg(refold.window_funnel_event(CAST('1 day' AS INTERVAL), ts, action = 'view', action = 'buy', version > 1, action = 'noise'), ''), 4, true) AS times__state
    FROM (
        SELECT action, ts, version
        FROM refold.events
        WHERE true
    ) AS read
    WHERE (action IN ('view', 'buy', 'noise'))
    GROUP BY 1
OFFSET 0
) AS made
WITH NO DATA;

-- create
ALTER TABLE refold_builds.everybody__1 ADD COLUMN before__ bigint;

-- create
CREATE STATISTICS refold_builds.everybody__1__slice ON ((hash_record_extended(ROW(scope), 0) >> 56)::integer) FROM refold_builds.everybody__1;

-- indexes
CREATE UNIQUE INDEX everybody__1__key ON refold_builds.everybody__1 (scope) NULLS NOT DISTINCT;

-- indexes
CREATE INDEX everybody__1__hash ON refold_builds.everybody__1 ((hash_record_extended(ROW(scope), 0)));

-- page
WITH page AS MATERIALIZED (
    SELECT * FROM (
        (SELECT txid, position, 0 AS ordinal, action, ts, version
         FROM refold.events
         WHERE txid = ANY (%(open)s::xid8[]) AND (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot))
           AND (txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint)
           AND (txid, position) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint)
         ORDER BY txid, position LIMIT %(limit)s::bigint)
        UNION ALL
        (SELECT txid, position, 0 AS ordinal, action, ts, version
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
arrived AS MATERIALIZED (
    SELECT CAST('all' AS TEXT) AS scope,
           COUNT(*) AS events,
           MAX(ts) FILTER(WHERE action = 'buy') AS bought_at,
           string_agg(refold.window_funnel_event(CAST('1 day' AS INTERVAL), ts, action = 'view', action IN ('view', 'buy'), action = 'buy', action = 'noise', action = 'buy', action = 'view', action = 'view', action = 'buy'), '') AS level__state,
           string_agg(refold.window_funnel_event(CAST('1 day' AS INTERVAL), ts, action = 'view', action = 'buy', version > 1, action = 'noise'), '') AS times__state
    FROM page
    WHERE (action IN ('view', 'buy', 'noise'))
    GROUP BY 1
),
folded AS MATERIALIZED (
    SELECT arrived.scope,
           arrived.events,
           arrived.bought_at,
           refold.window_funnel_fold(kept.level__state, arrived.level__state, 8, false) AS level__state,
           refold.window_funnel_fold(kept.times__state, arrived.times__state, 4, true) AS times__state
    FROM arrived
    LEFT JOIN LATERAL (
        SELECT level__state, times__state FROM refold_builds.everybody__1 AS known
        WHERE hash_record_extended(ROW(known.scope), 0) = hash_record_extended(ROW(arrived.scope), 0)
          AND known.scope IS NOT DISTINCT FROM arrived.scope
        OFFSET 0
    ) AS kept ON true
),
written AS (
    INSERT INTO refold_builds.everybody__1 AS kept (scope, events, bought_at, level__state, times__state, level, times)
    SELECT scope,
           events,
           bought_at,
           level__state,
           times__state,
           get_byte(level__state, 0) AS level,
           refold.window_funnel_kept_times(times__state) AS times
    FROM (
        SELECT folded.scope,
               folded.events,
               folded.bought_at,
               coalesce(folded.level__state, (
            SELECT refold.window_funnel_fold(NULL, string_agg(refold.window_funnel_event(CAST('1 day' AS INTERVAL), ts, action = 'view', action IN ('view', 'buy'), action = 'buy', action = 'noise', action = 'buy', action = 'view', action = 'view', action = 'buy'), ''), 8, false)
            FROM (
                SELECT action, ts, version FROM refold.events
                WHERE hash_record_extended(ROW(CAST('all' AS TEXT)), 0) = hash_record_extended(ROW(folded.scope), 0) AND event_id <> ALL (%(dead)s::text[])
                  AND (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                       OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (SELECT txid, position FROM upto__)))
                OFFSET 0
            ) AS read
            WHERE (CAST('all' AS TEXT)) IS NOT DISTINCT FROM folded.scope
              AND (action IN ('view', 'buy', 'noise'))
        )) AS level__state,
               coalesce(folded.times__state, (
            SELECT refold.window_funnel_fold(NULL, string_agg(refold.window_funnel_event(CAST('1 day' AS INTERVAL), ts, action = 'view', action = 'buy', version > 1, action = 'noise'), ''), 4, true)
            FROM (
                SELECT action, ts, version FROM refold.events
                WHERE hash_record_extended(ROW(CAST('all' AS TEXT)), 0) = hash_record_extended(ROW(folded.scope), 0) AND event_id <> ALL (%(dead)s::text[])
                  AND (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                       OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (SELECT txid, position FROM upto__)))
                OFFSET 0
            ) AS read
            WHERE (CAST('all' AS TEXT)) IS NOT DISTINCT FROM folded.scope
              AND (action IN ('view', 'buy', 'noise'))
        )) AS times__state
        FROM folded
    OFFSET 0
    ) AS made WHERE true
    ON CONFLICT (scope) DO UPDATE SET
        events = kept.events + excluded.events,
        bought_at = greatest(kept.bought_at, excluded.bought_at),
        level__state = excluded.level__state,
        times__state = excluded.times__state,
        level = excluded.level,
        times = excluded.times,
        before__ = hash_record_extended(ROW(kept.scope, kept.events, kept.bought_at, kept.level__state, kept.times__state, kept.level, kept.times), 8)
    RETURNING (hash_record_extended(ROW(scope), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(scope, events, bought_at, level__state, times__state, level, times), 8) AS new__, before__ AS old__
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
    SELECT txid, position, 0 AS ordinal, action, ts, version
    FROM refold.events
    WHERE (txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint)
      AND (txid, position) <= ((SELECT txid FROM upto__), (SELECT position FROM upto__))
      AND txid <= (SELECT txid FROM upto__)
),
arrived AS MATERIALIZED (
    SELECT CAST('all' AS TEXT) AS scope,
           COUNT(*) AS events,
           MAX(ts) FILTER(WHERE action = 'buy') AS bought_at,
           string_agg(refold.window_funnel_event(CAST('1 day' AS INTERVAL), ts, action = 'view', action IN ('view', 'buy'), action = 'buy', action = 'noise', action = 'buy', action = 'view', action = 'view', action = 'buy'), '') AS level__state,
           string_agg(refold.window_funnel_event(CAST('1 day' AS INTERVAL), ts, action = 'view', action = 'buy', version > 1, action = 'noise'), '') AS times__state
    FROM page
    WHERE (action IN ('view', 'buy', 'noise'))
    GROUP BY 1
),
folded AS MATERIALIZED (
    SELECT arrived.scope,
           arrived.events,
           arrived.bought_at,
           refold.window_funnel_fold(kept.level__state, arrived.level__state, 8, false) AS level__state,
           refold.window_funnel_fold(kept.times__state, arrived.times__state, 4, true) AS times__state
    FROM arrived
    LEFT JOIN LATERAL (
        SELECT level__state, times__state FROM refold_builds.everybody__1 AS known
        WHERE hash_record_extended(ROW(known.scope), 0) = hash_record_extended(ROW(arrived.scope), 0)
          AND known.scope IS NOT DISTINCT FROM arrived.scope
        OFFSET 0
    ) AS kept ON true
),
written AS (
    INSERT INTO refold_builds.everybody__1 AS kept (scope, events, bought_at, level__state, times__state, level, times)
    SELECT scope,
           events,
           bought_at,
           level__state,
           times__state,
           get_byte(level__state, 0) AS level,
           refold.window_funnel_kept_times(times__state) AS times
    FROM (
        SELECT folded.scope,
               folded.events,
               folded.bought_at,
               coalesce(folded.level__state, (
            SELECT refold.window_funnel_fold(NULL, string_agg(refold.window_funnel_event(CAST('1 day' AS INTERVAL), ts, action = 'view', action IN ('view', 'buy'), action = 'buy', action = 'noise', action = 'buy', action = 'view', action = 'view', action = 'buy'), ''), 8, false)
            FROM (
                SELECT action, ts, version FROM refold.events
                WHERE hash_record_extended(ROW(CAST('all' AS TEXT)), 0) = hash_record_extended(ROW(folded.scope), 0) AND event_id <> ALL (%(dead)s::text[])
                  AND (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                       OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (SELECT txid, position FROM upto__)))
                OFFSET 0
            ) AS read
            WHERE (CAST('all' AS TEXT)) IS NOT DISTINCT FROM folded.scope
              AND (action IN ('view', 'buy', 'noise'))
        )) AS level__state,
               coalesce(folded.times__state, (
            SELECT refold.window_funnel_fold(NULL, string_agg(refold.window_funnel_event(CAST('1 day' AS INTERVAL), ts, action = 'view', action = 'buy', version > 1, action = 'noise'), ''), 4, true)
            FROM (
                SELECT action, ts, version FROM refold.events
                WHERE hash_record_extended(ROW(CAST('all' AS TEXT)), 0) = hash_record_extended(ROW(folded.scope), 0) AND event_id <> ALL (%(dead)s::text[])
                  AND (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                       OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (SELECT txid, position FROM upto__)))
                OFFSET 0
            ) AS read
            WHERE (CAST('all' AS TEXT)) IS NOT DISTINCT FROM folded.scope
              AND (action IN ('view', 'buy', 'noise'))
        )) AS times__state
        FROM folded
    OFFSET 0
    ) AS made WHERE true
    ON CONFLICT (scope) DO UPDATE SET
        events = kept.events + excluded.events,
        bought_at = greatest(kept.bought_at, excluded.bought_at),
        level__state = excluded.level__state,
        times__state = excluded.times__state,
        level = excluded.level,
        times = excluded.times,
        before__ = hash_record_extended(ROW(kept.scope, kept.events, kept.bought_at, kept.level__state, kept.times__state, kept.level, kept.times), 8)
    RETURNING (hash_record_extended(ROW(scope), 0) >> 56)::integer AS slice__, hash_record_extended(ROW(scope, events, bought_at, level__state, times__state, level, times), 8) AS new__, before__ AS old__
),
checksums AS (
    INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
    SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
    FROM (
        SELECT 0 AS relation, slice__ AS slice, count(*) - count(old__) AS rows, sum(new__) - coalesce(sum(old__), 0) AS hash FROM written GROUP BY slice__
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
INSERT INTO refold_builds.everybody__1 (scope, events, bought_at, level__state, times__state, level, times)
SELECT scope,
       events,
       bought_at,
       level__state,
       times__state,
       get_byte(level__state, 0) AS level,
       refold.window_funnel_kept_times(times__state) AS times
FROM (
    SELECT CAST('all' AS TEXT) AS scope,
           COUNT(*) AS events,
           MAX(ts) FILTER(WHERE action = 'buy') AS bought_at,
           refold.window_funnel_fold(NULL, string_agg(refold.window_funnel_event(CAST('1 day' AS INTERVAL), ts, action = 'view', action IN ('view', 'buy'), action = 'buy', action = 'noise', action = 'buy', action = 'view', action = 'view', action = 'buy'), ''), 8, false) AS level__state,
           refold.window_funnel_fold(NULL, string_agg(refold.window_funnel_event(CAST('1 day' AS INTERVAL), ts, action = 'view', action = 'buy', version > 1, action = 'noise'), ''), 4, true) AS times__state
    FROM (
        SELECT action, ts, version
        FROM refold.events
        WHERE (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
          AND (%(steps)s::integer = 1 OR (hash_record_extended(ROW(CAST('all' AS TEXT)), 0) & 2147483647) %% %(steps)s::integer = %(step)s::integer)
    ) AS read
    WHERE (action IN ('view', 'buy', 'noise'))
    GROUP BY 1
OFFSET 0
) AS made;

-- audit of refold_builds.everybody__1
WITH expected AS MATERIALIZED (
    SELECT scope,
           events,
           bought_at,
           level__state,
           times__state,
           get_byte(level__state, 0) AS level,
           refold.window_funnel_kept_times(times__state) AS times
    FROM (
        SELECT CAST('all' AS TEXT) AS scope,
               COUNT(*) AS events,
               MAX(ts) FILTER(WHERE action = 'buy') AS bought_at,
               refold.window_funnel_fold(NULL, string_agg(refold.window_funnel_event(CAST('1 day' AS INTERVAL), ts, action = 'view', action IN ('view', 'buy'), action = 'buy', action = 'noise', action = 'buy', action = 'view', action = 'view', action = 'buy'), ''), 8, false) AS level__state,
               refold.window_funnel_fold(NULL, string_agg(refold.window_funnel_event(CAST('1 day' AS INTERVAL), ts, action = 'view', action = 'buy', version > 1, action = 'noise'), ''), 4, true) AS times__state
        FROM (
            SELECT action, ts, version
            FROM refold.events
            WHERE (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                 OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
              AND event_id <> ALL (%(dead)s::text[])
            OFFSET 0
        ) AS read
        WHERE (action IN ('view', 'buy', 'noise'))
        GROUP BY 1
    OFFSET 0
    ) AS made
),
actual AS MATERIALIZED (
    SELECT scope, events, bought_at, level__state, times__state, level, times FROM refold_builds.everybody__1 WHERE true
)
SELECT 'expected' AS side, hash_record_extended(ROW(scope), 0) AS hash, (hash_record_extended(ROW(scope), 0) >> 56)::integer AS slice, jsonb_build_object('scope', d__.scope) AS key, jsonb_build_object('scope', scope, 'events', events, 'bought_at', bought_at, 'level', level, 'times', times) AS row
FROM (SELECT scope, events, bought_at, level__state, times__state, level, times FROM expected EXCEPT ALL SELECT scope, events, bought_at, level__state, times__state, level, times FROM actual) AS d__
UNION ALL
SELECT 'actual' AS side, hash_record_extended(ROW(scope), 0) AS hash, (hash_record_extended(ROW(scope), 0) >> 56)::integer AS slice, jsonb_build_object('scope', d__.scope) AS key, jsonb_build_object('scope', scope, 'events', events, 'bought_at', bought_at, 'level', level, 'times', times) AS row
FROM (SELECT scope, events, bought_at, level__state, times__state, level, times FROM actual EXCEPT ALL SELECT scope, events, bought_at, level__state, times__state, level, times FROM expected) AS d__;

-- healing of refold_builds.everybody__1: delete
DELETE FROM refold_builds.everybody__1 WHERE (true) AND hash_record_extended(ROW(scope), 0) IN (SELECT unnest(%(keys)s::bigint[]));

-- healing of refold_builds.everybody__1: insert
INSERT INTO refold_builds.everybody__1 (scope, events, bought_at, level__state, times__state, level, times)
SELECT scope,
       events,
       bought_at,
       level__state,
       times__state,
       get_byte(level__state, 0) AS level,
       refold.window_funnel_kept_times(times__state) AS times
FROM (
    SELECT CAST('all' AS TEXT) AS scope,
           COUNT(*) AS events,
           MAX(ts) FILTER(WHERE action = 'buy') AS bought_at,
           refold.window_funnel_fold(NULL, string_agg(refold.window_funnel_event(CAST('1 day' AS INTERVAL), ts, action = 'view', action IN ('view', 'buy'), action = 'buy', action = 'noise', action = 'buy', action = 'view', action = 'view', action = 'buy'), ''), 8, false) AS level__state,
           refold.window_funnel_fold(NULL, string_agg(refold.window_funnel_event(CAST('1 day' AS INTERVAL), ts, action = 'view', action = 'buy', version > 1, action = 'noise'), ''), 4, true) AS times__state
    FROM (
        SELECT action, ts, version
        FROM refold.events
        WHERE (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
             OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
          AND event_id <> ALL (%(dead)s::text[])
          AND true
          AND hash_record_extended(ROW(CAST('all' AS TEXT)), 0) IN (SELECT unnest(%(keys)s::bigint[]))
        OFFSET 0
    ) AS read
    WHERE (action IN ('view', 'buy', 'noise'))
    GROUP BY 1
OFFSET 0
) AS made;

-- view
SELECT scope, level, times, events, bought_at FROM refold_builds.everybody__1;

-- load_apart
INSERT INTO refold_builds.everybody__1 (scope, events, bought_at, level__state, times__state, level, times)
SELECT scope,
       events,
       bought_at,
       level__state,
       times__state,
       get_byte(level__state, 0) AS level,
       refold.window_funnel_kept_times(times__state) AS times
FROM (
    SELECT CAST('all' AS TEXT) AS scope,
           COUNT(*) AS events,
           MAX(ts) FILTER(WHERE action = 'buy') AS bought_at,
           refold.window_funnel_fold(NULL, string_agg(refold.window_funnel_event(CAST('1 day' AS INTERVAL), ts, action = 'view', action IN ('view', 'buy'), action = 'buy', action = 'noise', action = 'buy', action = 'view', action = 'view', action = 'buy'), ''), 8, false) AS level__state,
           refold.window_funnel_fold(NULL, string_agg(refold.window_funnel_event(CAST('1 day' AS INTERVAL), ts, action = 'view', action = 'buy', version > 1, action = 'noise'), ''), 4, true) AS times__state
    FROM (
        SELECT action, ts, version
        FROM refold.events
        WHERE (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
          AND (%(steps)s::integer = 1 OR (hash_record_extended(ROW(CAST('all' AS TEXT)), 0) & 2147483647) %% %(steps)s::integer = %(step)s::integer)
        OFFSET 0
    ) AS read
    WHERE (action IN ('view', 'buy', 'noise'))
    GROUP BY 1
OFFSET 0
) AS made;

-- probe
INSERT INTO refold_builds.everybody__1 (scope, events, bought_at, level__state, times__state, level, times)
SELECT scope,
       events,
       bought_at,
       level__state,
       times__state,
       get_byte(level__state, 0) AS level,
       refold.window_funnel_kept_times(times__state) AS times
FROM (
    SELECT CAST('all' AS TEXT) AS scope,
           COUNT(*) AS events,
           MAX(ts) FILTER(WHERE action = 'buy') AS bought_at,
           refold.window_funnel_fold(NULL, string_agg(refold.window_funnel_event(CAST('1 day' AS INTERVAL), ts, action = 'view', action IN ('view', 'buy'), action = 'buy', action = 'noise', action = 'buy', action = 'view', action = 'view', action = 'buy'), ''), 8, false) AS level__state,
           refold.window_funnel_fold(NULL, string_agg(refold.window_funnel_event(CAST('1 day' AS INTERVAL), ts, action = 'view', action = 'buy', version > 1, action = 'noise'), ''), 4, true) AS times__state
    FROM (
        SELECT action, ts, version
        FROM refold.events
        WHERE CASE WHEN (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
          AND (%(whole)s::boolean OR
               ((txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint) AND (txid, position) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint))) THEN (%(steps)s::integer = 1 OR (hash_record_extended(ROW(CAST('all' AS TEXT)), 0) & 2147483647) %% %(steps)s::integer >= %(step)s::integer) END
        OFFSET 0
    ) AS read
    WHERE (action IN ('view', 'buy', 'noise'))
    GROUP BY 1
OFFSET 0
) AS made;

-- probe
CREATE UNIQUE INDEX everybody__1__key ON refold_builds.everybody__1 (scope) NULLS NOT DISTINCT;

-- probe
CREATE INDEX everybody__1__hash ON refold_builds.everybody__1 ((hash_record_extended(ROW(scope), 0)));

-- probe_keys
INSERT INTO refold_builds.everybody__1 (scope, events, bought_at, level__state, times__state, level, times)
SELECT scope,
       events,
       bought_at,
       level__state,
       times__state,
       get_byte(level__state, 0) AS level,
       refold.window_funnel_kept_times(times__state) AS times
FROM (
    SELECT CAST('all' AS TEXT) AS scope,
           COUNT(*) AS events,
           MAX(ts) FILTER(WHERE action = 'buy') AS bought_at,
           refold.window_funnel_fold(NULL, string_agg(refold.window_funnel_event(CAST('1 day' AS INTERVAL), ts, action = 'view', action IN ('view', 'buy'), action = 'buy', action = 'noise', action = 'buy', action = 'view', action = 'view', action = 'buy'), ''), 8, false) AS level__state,
           refold.window_funnel_fold(NULL, string_agg(refold.window_funnel_event(CAST('1 day' AS INTERVAL), ts, action = 'view', action = 'buy', version > 1, action = 'noise'), ''), 4, true) AS times__state
    FROM (
        SELECT action, ts, version
        FROM refold.events
        WHERE CASE WHEN (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
          AND (%(whole)s::boolean OR
               ((txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint) AND (txid, position) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint))) THEN hash_record_extended(ROW(CAST('all' AS TEXT)), 0) IN (SELECT unnest(%(keys)s::bigint[])) END
        OFFSET 0
    ) AS read
    WHERE (action IN ('view', 'buy', 'noise'))
    GROUP BY 1
OFFSET 0
) AS made;

-- probe_keys
CREATE UNIQUE INDEX everybody__1__key ON refold_builds.everybody__1 (scope) NULLS NOT DISTINCT;

-- probe_keys
CREATE INDEX everybody__1__hash ON refold_builds.everybody__1 ((hash_record_extended(ROW(scope), 0)));

-- keys_left
SELECT DISTINCT hash_record_extended(ROW(CAST('all' AS TEXT)), 0)
FROM refold.events
WHERE CASE WHEN (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
  AND (%(whole)s::boolean OR
       ((txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint) AND (txid, position) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint))) THEN (%(steps)s::integer = 1 OR (hash_record_extended(ROW(CAST('all' AS TEXT)), 0) & 2147483647) %% %(steps)s::integer >= %(step)s::integer) END;

-- events_of_keys
SELECT event_id, txid::text::bigint, position, 0
FROM refold.events
WHERE CASE WHEN (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
  AND (%(whole)s::boolean OR
       ((txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint) AND (txid, position) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint))) THEN hash_record_extended(ROW(CAST('all' AS TEXT)), 0) IN (SELECT unnest(%(keys)s::bigint[])) END
ORDER BY txid, position;
