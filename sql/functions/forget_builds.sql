-- Delete the rows of builds whose tables were dropped long ago, with their dead letters, and unreferenced deployments.
-- The latest build of a projection stays, for its number, and so does the latest that was live, so that a rollback can
-- name it. Builds that other rows reference stay too.
CREATE OR REPLACE FUNCTION refold.forget_builds(many integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
AS $$
DECLARE
    horizon timestamptz := (
        SELECT clock_timestamp() - make_interval(days => greatest(build_days, latency_days)) FROM refold.settings);
    old bigint[];
BEGIN
    old := ARRAY(
        SELECT b.build_id FROM refold.builds AS b
        WHERE b.state = 'dropped' AND b.retired_at < horizon
          AND EXISTS (SELECT FROM refold.builds AS o WHERE o.projection = b.projection AND o.number > b.number)
          AND (b.promoted_at IS NULL OR EXISTS (
              SELECT FROM refold.builds AS o
              WHERE o.projection = b.projection AND o.number > b.number AND o.state = 'dropped'
                AND o.promoted_at IS NOT NULL))
          AND NOT EXISTS (SELECT FROM refold.builds AS o WHERE o.upstream_id = b.build_id)
          AND NOT EXISTS (SELECT FROM refold.repairs AS r WHERE r.build_id = b.build_id)
        ORDER BY b.build_id LIMIT many
        FOR UPDATE SKIP LOCKED);
    DELETE FROM refold.dead_letters WHERE build_id = ANY (old);
    DELETE FROM refold.checksums WHERE build_id = ANY (old);
    DELETE FROM refold.audits WHERE build_id = ANY (old);
    DELETE FROM refold.builds WHERE build_id = ANY (old);
    DELETE FROM refold.deployments AS d
    WHERE d.deployment IN (
        SELECT o.deployment FROM refold.deployments AS o
        WHERE o.requested_at < horizon
          AND NOT EXISTS (SELECT FROM refold.builds AS b WHERE o.deployment IN (b.deployment, b.retired_by))
        LIMIT many);
    RETURN cardinality(old);
END
$$;

COMMENT ON FUNCTION refold.forget_builds(integer)
    IS 'Delete the rows of builds that were dropped long ago, with their dead letters, and return how many.';
