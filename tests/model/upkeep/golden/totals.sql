-- totals: merge, because: every aggregate can be merged

-- create
CREATE TABLE refold_builds.totals__1 AS
SELECT CAST((ts AT TIME ZONE 'UTC') AS DATE) AS day,
       action AS action,
       COUNT(*) AS events,
       COUNT(user_id) AS known,
       SUM(CAST((metadata ->> 'n') AS DECIMAL)) AS total,
       MIN(ts) AS first_at,
       MAX(refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) AS largest,
       BOOL_AND((metadata ->> 'n') IS NOT NULL) AS all_numbered,
       BOOL_AND(CAST((metadata ->> 'n') AS DECIMAL) > 0) AS all_positive,
       BOOL_OR(CAST((metadata ->> 'n') AS DECIMAL) > 5) AS any_large,
       COUNT(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__count,
       COUNT(*) FILTER(WHERE user_id IS NULL) AS anonymous,
       SUM(version) FILTER(WHERE action = 'buy') AS mean_version__sum,
       COUNT(version) FILTER(WHERE action = 'buy') AS mean_version__count,
       MAX(ts) AS span__13
FROM refold.events
GROUP BY 1, 2
WITH NO DATA;

-- create
ALTER TABLE refold_builds.totals__1 ADD COLUMN before__ bigint;

-- create
CREATE TRIGGER evaluated AFTER INSERT OR UPDATE ON refold_builds.totals__1 FOR EACH ROW
WHEN (CASE WHEN new.events > 1 OR new.total > 0 THEN num_nulls(ROUND(100.0 * new.known / new.events, 1), new.span__13 - new.first_at) < 0 END) EXECUTE FUNCTION refold.evaluated();

-- keys
CREATE UNIQUE INDEX totals__1__key ON refold_builds.totals__1 (day, action) NULLS NOT DISTINCT;

-- page
WITH page AS MATERIALIZED (
    SELECT * FROM (
        (SELECT txid, position, 0 AS ordinal, user_id, action, ts, metadata, version
         FROM refold.events
         WHERE txid = ANY (%(open)s::xid8[]) AND (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot))
           AND (txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint)
           AND (txid, position) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint)
         ORDER BY txid, position LIMIT %(limit)s::bigint)
        UNION ALL
        (SELECT txid, position, 0 AS ordinal, user_id, action, ts, metadata, version
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
    INSERT INTO refold_builds.totals__1 AS kept (day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13)
    SELECT CAST((ts AT TIME ZONE 'UTC') AS DATE) AS day,
           action AS action,
           COUNT(*) AS events,
           COUNT(user_id) AS known,
           SUM(CAST((metadata ->> 'n') AS DECIMAL)) AS total,
           MIN(ts) AS first_at,
           MAX(refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) AS largest,
           BOOL_AND((metadata ->> 'n') IS NOT NULL) AS all_numbered,
           BOOL_AND(CAST((metadata ->> 'n') AS DECIMAL) > 0) AS all_positive,
           BOOL_OR(CAST((metadata ->> 'n') AS DECIMAL) > 5) AS any_large,
           COUNT(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__count,
           COUNT(*) FILTER(WHERE user_id IS NULL) AS anonymous,
           SUM(version) FILTER(WHERE action = 'buy') AS mean_version__sum,
           COUNT(version) FILTER(WHERE action = 'buy') AS mean_version__count,
           MAX(ts) AS span__13
    FROM page
    GROUP BY 1, 2
    ON CONFLICT (day, action) DO UPDATE SET
        events = kept.events + excluded.events,
        known = kept.known + excluded.known,
        total = coalesce(kept.total + excluded.total, kept.total, excluded.total),
        first_at = least(kept.first_at, excluded.first_at),
        largest = greatest(kept.largest, excluded.largest),
        all_numbered = coalesce(kept.all_numbered AND excluded.all_numbered, kept.all_numbered, excluded.all_numbered),
        all_positive = coalesce(kept.all_positive AND excluded.all_positive, kept.all_positive, excluded.all_positive),
        any_large = coalesce(kept.any_large OR excluded.any_large, kept.any_large, excluded.any_large),
        mean__count = kept.mean__count + excluded.mean__count,
        anonymous = kept.anonymous + excluded.anonymous,
        mean_version__sum = coalesce(kept.mean_version__sum + excluded.mean_version__sum, kept.mean_version__sum, excluded.mean_version__sum),
        mean_version__count = kept.mean_version__count + excluded.mean_version__count,
        span__13 = greatest(kept.span__13, excluded.span__13),
        before__ = hash_record_extended(ROW(kept.day, kept.action, kept.events, kept.known, kept.total, kept.first_at, kept.largest, kept.all_numbered, kept.all_positive, kept.any_large, kept.mean__count, kept.anonymous, kept.mean_version__sum, kept.mean_version__count, kept.span__13), 8)
    RETURNING refold.day_slice(day::date) AS slice__, hash_record_extended(ROW(day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13), 8) AS new__, before__ AS old__
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
    SELECT txid, position, 0 AS ordinal, user_id, action, ts, metadata, version
    FROM refold.events
    WHERE (txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint)
      AND (txid, position) <= ((SELECT txid FROM upto__), (SELECT position FROM upto__))
      AND txid <= (SELECT txid FROM upto__)
),
written AS (
    INSERT INTO refold_builds.totals__1 AS kept (day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13)
    SELECT CAST((ts AT TIME ZONE 'UTC') AS DATE) AS day,
           action AS action,
           COUNT(*) AS events,
           COUNT(user_id) AS known,
           SUM(CAST((metadata ->> 'n') AS DECIMAL)) AS total,
           MIN(ts) AS first_at,
           MAX(refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) AS largest,
           BOOL_AND((metadata ->> 'n') IS NOT NULL) AS all_numbered,
           BOOL_AND(CAST((metadata ->> 'n') AS DECIMAL) > 0) AS all_positive,
           BOOL_OR(CAST((metadata ->> 'n') AS DECIMAL) > 5) AS any_large,
           COUNT(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__count,
           COUNT(*) FILTER(WHERE user_id IS NULL) AS anonymous,
           SUM(version) FILTER(WHERE action = 'buy') AS mean_version__sum,
           COUNT(version) FILTER(WHERE action = 'buy') AS mean_version__count,
           MAX(ts) AS span__13
    FROM page
    GROUP BY 1, 2
    ON CONFLICT (day, action) DO UPDATE SET
        events = kept.events + excluded.events,
        known = kept.known + excluded.known,
        total = coalesce(kept.total + excluded.total, kept.total, excluded.total),
        first_at = least(kept.first_at, excluded.first_at),
        largest = greatest(kept.largest, excluded.largest),
        all_numbered = coalesce(kept.all_numbered AND excluded.all_numbered, kept.all_numbered, excluded.all_numbered),
        all_positive = coalesce(kept.all_positive AND excluded.all_positive, kept.all_positive, excluded.all_positive),
        any_large = coalesce(kept.any_large OR excluded.any_large, kept.any_large, excluded.any_large),
        mean__count = kept.mean__count + excluded.mean__count,
        anonymous = kept.anonymous + excluded.anonymous,
        mean_version__sum = coalesce(kept.mean_version__sum + excluded.mean_version__sum, kept.mean_version__sum, excluded.mean_version__sum),
        mean_version__count = kept.mean_version__count + excluded.mean_version__count,
        span__13 = greatest(kept.span__13, excluded.span__13),
        before__ = hash_record_extended(ROW(kept.day, kept.action, kept.events, kept.known, kept.total, kept.first_at, kept.largest, kept.all_numbered, kept.all_positive, kept.any_large, kept.mean__count, kept.anonymous, kept.mean_version__sum, kept.mean_version__count, kept.span__13), 8)
    RETURNING refold.day_slice(day::date) AS slice__, hash_record_extended(ROW(day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13), 8) AS new__, before__ AS old__
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
SELECT CAST((ts AT TIME ZONE 'UTC') AS DATE) AS day,
       action AS action,
       COUNT(*) AS events,
       COUNT(user_id) AS known,
       SUM(CAST((metadata ->> 'n') AS DECIMAL)) AS total,
       MIN(ts) AS first_at,
       MAX(refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) AS largest,
       BOOL_AND((metadata ->> 'n') IS NOT NULL) AS all_numbered,
       BOOL_AND(CAST((metadata ->> 'n') AS DECIMAL) > 0) AS all_positive,
       BOOL_OR(CAST((metadata ->> 'n') AS DECIMAL) > 5) AS any_large,
       COUNT(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__count,
       COUNT(*) FILTER(WHERE user_id IS NULL) AS anonymous,
       SUM(version) FILTER(WHERE action = 'buy') AS mean_version__sum,
       COUNT(version) FILTER(WHERE action = 'buy') AS mean_version__count,
       MAX(ts) AS span__13
FROM refold.events
WHERE (txid < %(settled)s::xid8 OR pg_visible_in_snapshot(txid, %(target)s::pg_snapshot)) AND event_id <> ALL (%(dead)s::text[])
  AND (%(whole)s::boolean OR
       ((txid, position) > (%(after_txid)s::xid8, %(after_position)s::bigint) AND (txid, position) <= (%(upto_txid)s::xid8, %(upto_position)s::bigint)))
GROUP BY 1, 2;

-- load
INSERT INTO refold_builds.totals__1 AS kept (day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13)
SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13 FROM delta WHERE true
ON CONFLICT (day, action) DO UPDATE SET
    events = kept.events + excluded.events,
    known = kept.known + excluded.known,
    total = coalesce(kept.total + excluded.total, kept.total, excluded.total),
    first_at = least(kept.first_at, excluded.first_at),
    largest = greatest(kept.largest, excluded.largest),
    all_numbered = coalesce(kept.all_numbered AND excluded.all_numbered, kept.all_numbered, excluded.all_numbered),
    all_positive = coalesce(kept.all_positive AND excluded.all_positive, kept.all_positive, excluded.all_positive),
    any_large = coalesce(kept.any_large OR excluded.any_large, kept.any_large, excluded.any_large),
    mean__count = kept.mean__count + excluded.mean__count,
    anonymous = kept.anonymous + excluded.anonymous,
    mean_version__sum = coalesce(kept.mean_version__sum + excluded.mean_version__sum, kept.mean_version__sum, excluded.mean_version__sum),
    mean_version__count = kept.mean_version__count + excluded.mean_version__count,
    span__13 = greatest(kept.span__13, excluded.span__13),
    before__ = hash_record_extended(ROW(kept.day, kept.action, kept.events, kept.known, kept.total, kept.first_at, kept.largest, kept.all_numbered, kept.all_positive, kept.any_large, kept.mean__count, kept.anonymous, kept.mean_version__sum, kept.mean_version__count, kept.span__13), 8);

-- audit of refold_builds.totals__1
WITH expected AS MATERIALIZED (
    SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13 FROM (
        SELECT CAST((ts AT TIME ZONE 'UTC') AS DATE) AS day,
               action AS action,
               COUNT(*) AS events,
               COUNT(user_id) AS known,
               SUM(CAST((metadata ->> 'n') AS DECIMAL)) AS total,
               MIN(ts) AS first_at,
               MAX(refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) AS largest,
               BOOL_AND((metadata ->> 'n') IS NOT NULL) AS all_numbered,
               BOOL_AND(CAST((metadata ->> 'n') AS DECIMAL) > 0) AS all_positive,
               BOOL_OR(CAST((metadata ->> 'n') AS DECIMAL) > 5) AS any_large,
               COUNT(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__count,
               COUNT(*) FILTER(WHERE user_id IS NULL) AS anonymous,
               SUM(version) FILTER(WHERE action = 'buy') AS mean_version__sum,
               COUNT(version) FILTER(WHERE action = 'buy') AS mean_version__count,
               MAX(ts) AS span__13
        FROM refold.events
        WHERE (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
             OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
          AND event_id <> ALL (%(dead)s::text[])
        GROUP BY 1, 2
    ) AS new
    WHERE (CASE WHEN new.events > 1 OR new.total > 0 THEN num_nulls(ROUND(100.0 * new.known / new.events, 1), new.span__13 - new.first_at) < 0 END) IS NOT TRUE
),
actual AS MATERIALIZED (
    SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13 FROM refold_builds.totals__1 WHERE true
)
SELECT 'expected' AS side, hash_record_extended(ROW(day, action), 0) AS hash, refold.day_slice(day::date) AS slice, jsonb_build_object('day', d__.day, 'action', d__.action) AS key, to_jsonb(d__) AS row
FROM (SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13 FROM expected EXCEPT ALL SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13 FROM actual) AS d__
UNION ALL
SELECT 'actual' AS side, hash_record_extended(ROW(day, action), 0) AS hash, refold.day_slice(day::date) AS slice, jsonb_build_object('day', d__.day, 'action', d__.action) AS key, to_jsonb(d__) AS row
FROM (SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13 FROM actual EXCEPT ALL SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13 FROM expected) AS d__;

-- healing of refold_builds.totals__1: delete
DELETE FROM refold_builds.totals__1 WHERE (true) AND hash_record_extended(ROW(day, action), 0) IN (SELECT unnest(%(keys)s::bigint[]));

-- healing of refold_builds.totals__1: insert
INSERT INTO refold_builds.totals__1 (day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13)
SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13 FROM (
    SELECT CAST((ts AT TIME ZONE 'UTC') AS DATE) AS day,
           action AS action,
           COUNT(*) AS events,
           COUNT(user_id) AS known,
           SUM(CAST((metadata ->> 'n') AS DECIMAL)) AS total,
           MIN(ts) AS first_at,
           MAX(refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) AS largest,
           BOOL_AND((metadata ->> 'n') IS NOT NULL) AS all_numbered,
           BOOL_AND(CAST((metadata ->> 'n') AS DECIMAL) > 0) AS all_positive,
           BOOL_OR(CAST((metadata ->> 'n') AS DECIMAL) > 5) AS any_large,
           COUNT(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__count,
           COUNT(*) FILTER(WHERE user_id IS NULL) AS anonymous,
           SUM(version) FILTER(WHERE action = 'buy') AS mean_version__sum,
           COUNT(version) FILTER(WHERE action = 'buy') AS mean_version__count,
           MAX(ts) AS span__13
    FROM refold.events
    WHERE true
      AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
         OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
      AND event_id <> ALL (%(dead)s::text[]) THEN hash_record_extended(ROW(CAST((ts AT TIME ZONE 'UTC') AS DATE), action), 0) END IN (SELECT unnest(%(keys)s::bigint[]))
      AND (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
         OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
      AND event_id <> ALL (%(dead)s::text[])
    GROUP BY 1, 2
) AS new
WHERE (CASE WHEN new.events > 1 OR new.total > 0 THEN num_nulls(ROUND(100.0 * new.known / new.events, 1), new.span__13 - new.first_at) < 0 END) IS NOT TRUE;

-- view
SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, (CAST(total AS DECIMAL) / NULLIF(mean__count, 0)) AS mean, anonymous, (CAST(mean_version__sum AS DECIMAL) / NULLIF(mean_version__count, 0)) AS mean_version, CASE WHEN events > 1 OR total > 0 THEN ROUND(100.0 * known / events, 1) END AS known_percent, CASE WHEN events > 1 OR total > 0 THEN span__13 - first_at END AS span FROM refold_builds.totals__1 WHERE events > 1 OR total > 0;

-- rows with the events in `arriving`
WITH excluded AS MATERIALIZED (
    SELECT CAST((ts AT TIME ZONE 'UTC') AS DATE) AS day,
           action AS action,
           COUNT(*) AS events,
           COUNT(user_id) AS known,
           SUM(CAST((metadata ->> 'n') AS DECIMAL)) AS total,
           MIN(ts) AS first_at,
           MAX(refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) AS largest,
           BOOL_AND((metadata ->> 'n') IS NOT NULL) AS all_numbered,
           BOOL_AND(CAST((metadata ->> 'n') AS DECIMAL) > 0) AS all_positive,
           BOOL_OR(CAST((metadata ->> 'n') AS DECIMAL) > 5) AS any_large,
           COUNT(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__count,
           COUNT(*) FILTER(WHERE user_id IS NULL) AS anonymous,
           SUM(version) FILTER(WHERE action = 'buy') AS mean_version__sum,
           COUNT(version) FILTER(WHERE action = 'buy') AS mean_version__count,
           MAX(ts) AS span__13
    FROM arriving
    GROUP BY 1, 2
)
SELECT excluded.day,
       excluded.action,
       CASE WHEN kept.there__ THEN kept.events + excluded.events ELSE excluded.events END AS events,
       CASE WHEN kept.there__ THEN kept.known + excluded.known ELSE excluded.known END AS known,
       CASE WHEN kept.there__ THEN coalesce(kept.total + excluded.total, kept.total, excluded.total) ELSE excluded.total END AS total,
       CASE WHEN kept.there__ THEN least(kept.first_at, excluded.first_at) ELSE excluded.first_at END AS first_at,
       CASE WHEN kept.there__ THEN greatest(kept.largest, excluded.largest) ELSE excluded.largest END AS largest,
       CASE WHEN kept.there__ THEN coalesce(kept.all_numbered AND excluded.all_numbered, kept.all_numbered, excluded.all_numbered) ELSE excluded.all_numbered END AS all_numbered,
       CASE WHEN kept.there__ THEN coalesce(kept.all_positive AND excluded.all_positive, kept.all_positive, excluded.all_positive) ELSE excluded.all_positive END AS all_positive,
       CASE WHEN kept.there__ THEN coalesce(kept.any_large OR excluded.any_large, kept.any_large, excluded.any_large) ELSE excluded.any_large END AS any_large,
       CASE WHEN kept.there__ THEN kept.mean__count + excluded.mean__count ELSE excluded.mean__count END AS mean__count,
       CASE WHEN kept.there__ THEN kept.anonymous + excluded.anonymous ELSE excluded.anonymous END AS anonymous,
       CASE WHEN kept.there__ THEN coalesce(kept.mean_version__sum + excluded.mean_version__sum, kept.mean_version__sum, excluded.mean_version__sum) ELSE excluded.mean_version__sum END AS mean_version__sum,
       CASE WHEN kept.there__ THEN kept.mean_version__count + excluded.mean_version__count ELSE excluded.mean_version__count END AS mean_version__count,
       CASE WHEN kept.there__ THEN greatest(kept.span__13, excluded.span__13) ELSE excluded.span__13 END AS span__13
FROM excluded
LEFT JOIN (SELECT *, true AS there__ FROM refold_builds.totals__1) AS kept
    ON hash_record_extended(ROW(kept.day, kept.action), 0) = hash_record_extended(ROW(excluded.day, excluded.action), 0) AND kept.day IS NOT DISTINCT FROM excluded.day AND kept.action IS NOT DISTINCT FROM excluded.action;

-- base: create
CREATE TABLE refold_builds.totals__1__base AS SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13 FROM refold_builds.totals__1 WITH NO DATA;

-- base: create
ALTER TABLE refold_builds.totals__1__base ADD COLUMN upto__ bigint NOT NULL, ADD COLUMN before__ bigint;

-- base: create
CREATE UNIQUE INDEX totals__1__base__key ON refold_builds.totals__1__base (day, action, upto__) NULLS NOT DISTINCT;

-- base: create
CREATE INDEX totals__1__base__new ON refold_builds.totals__1__base (upto__) WHERE upto__ > 1;

-- base: fold the events in `arriving`
WITH read__ AS MATERIALIZED (
    SELECT * FROM arriving
    WHERE position >= %(lower)s::bigint AND position < %(upper)s::bigint
),
page AS (
    SELECT * FROM read__ WHERE event_id <> ALL (%(dead)s::text[])
),
written AS (
    INSERT INTO refold_builds.totals__1__base AS kept (day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13, upto__)
    SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13, %(upto)s::bigint FROM (
        SELECT CAST((ts AT TIME ZONE 'UTC') AS DATE) AS day,
               action AS action,
               COUNT(*) AS events,
               COUNT(user_id) AS known,
               SUM(CAST((metadata ->> 'n') AS DECIMAL)) AS total,
               MIN(ts) AS first_at,
               MAX(refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) AS largest,
               BOOL_AND((metadata ->> 'n') IS NOT NULL) AS all_numbered,
               BOOL_AND(CAST((metadata ->> 'n') AS DECIMAL) > 0) AS all_positive,
               BOOL_OR(CAST((metadata ->> 'n') AS DECIMAL) > 5) AS any_large,
               COUNT(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__count,
               COUNT(*) FILTER(WHERE user_id IS NULL) AS anonymous,
               SUM(version) FILTER(WHERE action = 'buy') AS mean_version__sum,
               COUNT(version) FILTER(WHERE action = 'buy') AS mean_version__count,
               MAX(ts) AS span__13
        FROM page
        GROUP BY 1, 2
    ) AS delta WHERE true
    ON CONFLICT (day, action, upto__) DO UPDATE SET
        events = kept.events + excluded.events,
        known = kept.known + excluded.known,
        total = coalesce(kept.total + excluded.total, kept.total, excluded.total),
        first_at = least(kept.first_at, excluded.first_at),
        largest = greatest(kept.largest, excluded.largest),
        all_numbered = coalesce(kept.all_numbered AND excluded.all_numbered, kept.all_numbered, excluded.all_numbered),
        all_positive = coalesce(kept.all_positive AND excluded.all_positive, kept.all_positive, excluded.all_positive),
        any_large = coalesce(kept.any_large OR excluded.any_large, kept.any_large, excluded.any_large),
        mean__count = kept.mean__count + excluded.mean__count,
        anonymous = kept.anonymous + excluded.anonymous,
        mean_version__sum = coalesce(kept.mean_version__sum + excluded.mean_version__sum, kept.mean_version__sum, excluded.mean_version__sum),
        mean_version__count = kept.mean_version__count + excluded.mean_version__count,
        span__13 = greatest(kept.span__13, excluded.span__13),
        before__ = hash_record_extended(ROW(kept.day, kept.action, kept.events, kept.known, kept.total, kept.first_at, kept.largest, kept.all_numbered, kept.all_positive, kept.any_large, kept.mean__count, kept.anonymous, kept.mean_version__sum, kept.mean_version__count, kept.span__13, kept.upto__), 8)
    RETURNING refold.day_slice(day::date) AS slice__, hash_record_extended(ROW(day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13, upto__), 8) AS new__, before__ AS old__
),
checksums AS (
    INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
    SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
    FROM (
        SELECT 1 AS relation, slice__ AS slice, count(*) - count(old__) AS rows, sum(new__) - coalesce(sum(old__), 0) AS hash FROM written GROUP BY slice__
    ) AS changes
    GROUP BY relation, slice
)
SELECT count(*), coalesce(sum(hashint8extended(position, 0)), 0), coalesce(sum(hash_record_extended(ROW(txid, position, event_id, user_id, action, ts, metadata::text, version, recorded_at), 0)), 0) FROM read__;

-- base: undo
WITH gone_0 AS (
    DELETE FROM refold_builds.totals__1__base WHERE upto__ > %(floor)s::bigint AND upto__ > 1
    RETURNING refold.day_slice(day::date) AS slice__, hash_record_extended(ROW(day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13, upto__), 8) AS new__
)
INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
FROM (
    SELECT 1 AS relation, slice__ AS slice, -count(*) AS rows, -sum(new__) AS hash FROM gone_0 GROUP BY slice__
) AS changes
GROUP BY relation, slice;

-- base: settle
WITH gone AS (
    DELETE FROM refold_builds.totals__1__base WHERE ctid = ANY (ARRAY(SELECT ctid FROM refold_builds.totals__1__base WHERE upto__ > 1 AND upto__ <= %(floor)s::bigint LIMIT %(limit)s::bigint))
    RETURNING refold.day_slice(day::date) AS slice__, hash_record_extended(ROW(day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13, upto__), 8) AS new__, day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13
),
written AS (
    INSERT INTO refold_builds.totals__1__base AS kept (day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13, upto__)
    SELECT day, action, sum(events) AS events, sum(known) AS known, sum(total) AS total, min(first_at) AS first_at, max(largest) AS largest, bool_and(all_numbered) AS all_numbered, bool_and(all_positive) AS all_positive, bool_or(any_large) AS any_large, sum(mean__count) AS mean__count, sum(anonymous) AS anonymous, sum(mean_version__sum) AS mean_version__sum, sum(mean_version__count) AS mean_version__count, max(span__13) AS span__13, 1 FROM gone GROUP BY day, action
    ON CONFLICT (day, action, upto__) DO UPDATE SET
        events = kept.events + excluded.events,
        known = kept.known + excluded.known,
        total = coalesce(kept.total + excluded.total, kept.total, excluded.total),
        first_at = least(kept.first_at, excluded.first_at),
        largest = greatest(kept.largest, excluded.largest),
        all_numbered = coalesce(kept.all_numbered AND excluded.all_numbered, kept.all_numbered, excluded.all_numbered),
        all_positive = coalesce(kept.all_positive AND excluded.all_positive, kept.all_positive, excluded.all_positive),
        any_large = coalesce(kept.any_large OR excluded.any_large, kept.any_large, excluded.any_large),
        mean__count = kept.mean__count + excluded.mean__count,
        anonymous = kept.anonymous + excluded.anonymous,
        mean_version__sum = coalesce(kept.mean_version__sum + excluded.mean_version__sum, kept.mean_version__sum, excluded.mean_version__sum),
        mean_version__count = kept.mean_version__count + excluded.mean_version__count,
        span__13 = greatest(kept.span__13, excluded.span__13),
        before__ = hash_record_extended(ROW(kept.day, kept.action, kept.events, kept.known, kept.total, kept.first_at, kept.largest, kept.all_numbered, kept.all_positive, kept.any_large, kept.mean__count, kept.anonymous, kept.mean_version__sum, kept.mean_version__count, kept.span__13, kept.upto__), 8)
    RETURNING refold.day_slice(day::date) AS slice__, hash_record_extended(ROW(day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13, upto__), 8) AS new__, before__ AS old__
),
checksums AS (
    INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash)
    SELECT %(build)s::bigint, relation, slice, sum(rows)::bigint, sum(hash)
    FROM (
        SELECT 1 AS relation, slice__ AS slice, -count(*) AS rows, -sum(new__) AS hash FROM gone GROUP BY slice__
        UNION ALL
        SELECT 1 AS relation, slice__ AS slice, count(*) - count(old__) AS rows, sum(new__) - coalesce(sum(old__), 0) AS hash FROM written GROUP BY slice__
    ) AS changes
    GROUP BY relation, slice
)
SELECT count(*) FROM gone;

-- base: copy that of `another`
WITH copied_0 AS (
    INSERT INTO refold_builds.totals__1__base (day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13, upto__)
    SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13, upto__ FROM refold_builds.another__base WHERE upto__ <= %(floor)s::bigint
)
SELECT;

-- base: load
INSERT INTO refold_builds.totals__1 (day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13)
SELECT (row__).day, (row__).action, (row__).events, (row__).known, (row__).total, (row__).first_at, (row__).largest, (row__).all_numbered, (row__).all_positive, (row__).any_large, (row__).mean__count, (row__).anonymous, (row__).mean_version__sum, (row__).mean_version__count, (row__).span__13
FROM (
    SELECT ROW(day, action, sum(events), sum(known), sum(total), min(first_at), max(largest), bool_and(all_numbered), bool_and(all_positive), bool_or(any_large), sum(mean__count), sum(anonymous), sum(mean_version__sum), sum(mean_version__count), max(span__13), NULL)::refold_builds.totals__1 AS row__
    FROM (
        SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13 FROM refold_builds.totals__1__base WHERE (true) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'totals__1')
    ) AS parts
    GROUP BY day, action
) AS together;

-- with a base: audit of refold_builds.totals__1
WITH expected AS MATERIALIZED (
    SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13 FROM (
        SELECT (row__).day, (row__).action, (row__).events, (row__).known, (row__).total, (row__).first_at, (row__).largest, (row__).all_numbered, (row__).all_positive, (row__).any_large, (row__).mean__count, (row__).anonymous, (row__).mean_version__sum, (row__).mean_version__count, (row__).span__13
        FROM (
            SELECT ROW(day, action, sum(events), sum(known), sum(total), min(first_at), max(largest), bool_and(all_numbered), bool_and(all_positive), bool_or(any_large), sum(mean__count), sum(anonymous), sum(mean_version__sum), sum(mean_version__count), max(span__13), NULL)::refold_builds.totals__1 AS row__
            FROM (
                SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13 FROM refold_builds.totals__1__base WHERE (true) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'totals__1')
                UNION ALL
                SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13 FROM (
                    SELECT CAST((ts AT TIME ZONE 'UTC') AS DATE) AS day,
                           action AS action,
                           COUNT(*) AS events,
                           COUNT(user_id) AS known,
                           SUM(CAST((metadata ->> 'n') AS DECIMAL)) AS total,
                           MIN(ts) AS first_at,
                           MAX(refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) AS largest,
                           BOOL_AND((metadata ->> 'n') IS NOT NULL) AS all_numbered,
                           BOOL_AND(CAST((metadata ->> 'n') AS DECIMAL) > 0) AS all_positive,
                           BOOL_OR(CAST((metadata ->> 'n') AS DECIMAL) > 5) AS any_large,
                           COUNT(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__count,
                           COUNT(*) FILTER(WHERE user_id IS NULL) AS anonymous,
                           SUM(version) FILTER(WHERE action = 'buy') AS mean_version__sum,
                           COUNT(version) FILTER(WHERE action = 'buy') AS mean_version__count,
                           MAX(ts) AS span__13
                    FROM refold.events
                    WHERE position >= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'totals__1')
                      AND (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                         OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
                      AND event_id <> ALL (%(dead)s::text[])
                    GROUP BY 1, 2
                ) AS delta
            ) AS parts
            GROUP BY day, action
        ) AS together
    ) AS new
    WHERE (CASE WHEN new.events > 1 OR new.total > 0 THEN num_nulls(ROUND(100.0 * new.known / new.events, 1), new.span__13 - new.first_at) < 0 END) IS NOT TRUE
),
actual AS MATERIALIZED (
    SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13 FROM refold_builds.totals__1 WHERE true
)
SELECT 'expected' AS side, hash_record_extended(ROW(day, action), 0) AS hash, refold.day_slice(day::date) AS slice, jsonb_build_object('day', d__.day, 'action', d__.action) AS key, to_jsonb(d__) AS row
FROM (SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13 FROM expected EXCEPT ALL SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13 FROM actual) AS d__
UNION ALL
SELECT 'actual' AS side, hash_record_extended(ROW(day, action), 0) AS hash, refold.day_slice(day::date) AS slice, jsonb_build_object('day', d__.day, 'action', d__.action) AS key, to_jsonb(d__) AS row
FROM (SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13 FROM actual EXCEPT ALL SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13 FROM expected) AS d__;

-- with a base: healing of refold_builds.totals__1: insert
INSERT INTO refold_builds.totals__1 (day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13)
SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13 FROM (
    SELECT (row__).day, (row__).action, (row__).events, (row__).known, (row__).total, (row__).first_at, (row__).largest, (row__).all_numbered, (row__).all_positive, (row__).any_large, (row__).mean__count, (row__).anonymous, (row__).mean_version__sum, (row__).mean_version__count, (row__).span__13
    FROM (
        SELECT ROW(day, action, sum(events), sum(known), sum(total), min(first_at), max(largest), bool_and(all_numbered), bool_and(all_positive), bool_or(any_large), sum(mean__count), sum(anonymous), sum(mean_version__sum), sum(mean_version__count), max(span__13), NULL)::refold_builds.totals__1 AS row__
        FROM (
            SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13 FROM refold_builds.totals__1__base WHERE ((true) AND hash_record_extended(ROW(day, action), 0) IN (SELECT unnest(%(keys)s::bigint[]))) AND upto__ <= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'totals__1')
            UNION ALL
            SELECT day, action, events, known, total, first_at, largest, all_numbered, all_positive, any_large, mean__count, anonymous, mean_version__sum, mean_version__count, span__13 FROM (
                SELECT CAST((ts AT TIME ZONE 'UTC') AS DATE) AS day,
                       action AS action,
                       COUNT(*) AS events,
                       COUNT(user_id) AS known,
                       SUM(CAST((metadata ->> 'n') AS DECIMAL)) AS total,
                       MIN(ts) AS first_at,
                       MAX(refold.plain(CAST((metadata ->> 'n') AS DECIMAL))) AS largest,
                       BOOL_AND((metadata ->> 'n') IS NOT NULL) AS all_numbered,
                       BOOL_AND(CAST((metadata ->> 'n') AS DECIMAL) > 0) AS all_positive,
                       BOOL_OR(CAST((metadata ->> 'n') AS DECIMAL) > 5) AS any_large,
                       COUNT(CAST((metadata ->> 'n') AS DECIMAL)) AS mean__count,
                       COUNT(*) FILTER(WHERE user_id IS NULL) AS anonymous,
                       SUM(version) FILTER(WHERE action = 'buy') AS mean_version__sum,
                       COUNT(version) FILTER(WHERE action = 'buy') AS mean_version__count,
                       MAX(ts) AS span__13
                FROM refold.events
                WHERE position >= (SELECT b.floor FROM refold.builds AS b WHERE b.table_name = 'totals__1')
                  AND true
                  AND CASE WHEN (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
                  AND event_id <> ALL (%(dead)s::text[]) THEN hash_record_extended(ROW(CAST((ts AT TIME ZONE 'UTC') AS DATE), action), 0) END IN (SELECT unnest(%(keys)s::bigint[]))
                  AND (pg_visible_in_snapshot(txid, %(done)s::pg_snapshot)
                     OR (pg_visible_in_snapshot(txid, %(target)s::pg_snapshot) AND (txid, position) <= (%(progress_txid)s::xid8, %(progress_position)s::bigint)))
                  AND event_id <> ALL (%(dead)s::text[])
                GROUP BY 1, 2
            ) AS delta
        ) AS parts
        GROUP BY day, action
    ) AS together
) AS new
WHERE (CASE WHEN new.events > 1 OR new.total > 0 THEN num_nulls(ROUND(100.0 * new.known / new.events, 1), new.span__13 - new.first_at) < 0 END) IS NOT TRUE;
