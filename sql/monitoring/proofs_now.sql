-- Since when each build that is kept is proved: as of that instant, it and every stream that it reads were compared in
-- all slices, and what differed was healed. NULL: not proved. A build is as proved as the least proved build that it
-- reads, because its own audit compares it with their tables and not with the log.
--
-- A proof counts only
--   * if it read the stream that the build reads now;
--   * while nobody knows better: no drift of the projection is open;
--   * if it began after the last damage to the log was over: nobody knows when the damage began, and a build may equal
--     a damaged log;
--   * if it lies in the past. A clock that was ahead has written the others.
CREATE OR REPLACE VIEW refold.proofs_now AS
WITH RECURSIVE damage (over_at) AS (
    SELECT CASE
        -- The duty `stale incidents` corrects an end that a clock which was ahead has noted.
        WHEN EXISTS (
            SELECT FROM refold.incidents
            WHERE kind = 'log_damage' AND (resolved_at IS NULL OR resolved_at > clock_timestamp())
        )
        THEN 'infinity'::timestamptz
        ELSE coalesce(
            (SELECT max(resolved_at) FROM refold.incidents
             WHERE kind = 'log_damage' AND resolved_at <= clock_timestamp()),
            '-infinity')
    END
), own AS (
    SELECT b.build_id, b.upstream_id, greatest(p.quick, p.deep) AS proved_at, p.deep AS deep_proved_at
    FROM refold.builds AS b
    CROSS JOIN damage
    -- The newest of each, by the end of an index: max() may read all of them.
    LEFT JOIN LATERAL (
        SELECT
            (SELECT n.began_at FROM refold.proofs AS n
             WHERE n.build_id = b.build_id AND n.depth = 'quick' AND n.began_at <= clock_timestamp()
               AND n.began_at > damage.over_at AND n.upstream_id IS NOT DISTINCT FROM b.upstream_id
             ORDER BY n.began_at DESC LIMIT 1) AS quick,
            (SELECT n.began_at FROM refold.proofs AS n
             WHERE n.build_id = b.build_id AND n.depth = 'deep' AND n.began_at <= clock_timestamp()
               AND n.began_at > damage.over_at AND n.upstream_id IS NOT DISTINCT FROM b.upstream_id
             ORDER BY n.began_at DESC LIMIT 1) AS deep
    -- Read once, and not for each build.
    ) AS p ON b.loaded AND b.projection <> ALL (ARRAY(
        SELECT i.subject FROM refold.incidents AS i WHERE i.kind = 'drift' AND i.resolved_at IS NULL))
    WHERE b.state IN ('building', 'live')
), reading (build_id, read_id) AS (
    SELECT build_id, build_id FROM own
    UNION ALL
    SELECT reading.build_id, own.upstream_id
    FROM reading JOIN own ON own.build_id = reading.read_id
    WHERE own.upstream_id IS NOT NULL
)
SELECT
    reading.build_id,
    CASE WHEN bool_and(own.proved_at IS NOT NULL) THEN min(own.proved_at) END           AS proved_at,
    CASE WHEN bool_and(own.deep_proved_at IS NOT NULL) THEN min(own.deep_proved_at) END AS deep_proved_at
FROM reading LEFT JOIN own ON own.build_id = reading.read_id
GROUP BY reading.build_id;

COMMENT ON VIEW refold.proofs_now IS 'Since when each build is proved, with all that it reads: by any audit, and by deep audits. NULL: not proved.';
