-- Delete the oldest closed records of a kind that exceed the age in the settings, a portion at a time. The same statement
-- adds their numbers to refold.forgotten, for reports. A portion follows the order of creation, so that it reads no new
-- records. The result is the last number that was read; NULL: no old records are left.
--
-- Open incidents and input that came again lately stay, whatever their age. The function runs as the owner, because no
-- other role may delete these records, and only by these rules.
CREATE OR REPLACE FUNCTION refold.forget(what text, after bigint, many integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
AS $$
DECLARE
    days refold.settings := (SELECT s FROM refold.settings AS s);
    horizon timestamptz;
    upto bigint;
BEGIN
    CASE forget.what
    WHEN 'rejected' THEN
        horizon := clock_timestamp() - make_interval(days => days.rejected_days);
        WITH looked AS MATERIALIZED (
            SELECT r.rejected_id, r.first_seen FROM refold.rejected AS r
            WHERE r.rejected_id > forget.after ORDER BY r.rejected_id LIMIT forget.many
        ), old AS (
            SELECT r.rejected_id FROM refold.rejected AS r
            WHERE r.rejected_id IN (SELECT rejected_id FROM looked) AND r.last_seen < horizon
            FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM refold.rejected AS r USING old WHERE r.rejected_id = old.rejected_id
            RETURNING (r.last_seen AT TIME ZONE 'UTC')::date AS day, r.answer
        ), counted AS (
            INSERT INTO refold.forgotten AS f (day, what, kind, number)
            SELECT day, 'rejected', answer, count(*) FROM gone GROUP BY 1, 3
            ON CONFLICT ON CONSTRAINT forgotten_pkey DO UPDATE SET number = f.number + excluded.number
        )
        SELECT CASE WHEN count(*) = forget.many AND max(first_seen) < horizon THEN max(rejected_id) END INTO upto FROM looked;
    WHEN 'repairs' THEN
        horizon := clock_timestamp() - make_interval(days => days.repair_days);
        WITH looked AS MATERIALIZED (
            SELECT r.repair_id, r.repaired_at FROM refold.repairs AS r
            WHERE r.repair_id > forget.after ORDER BY r.repair_id LIMIT forget.many
        ), gone AS (
            DELETE FROM refold.repairs AS r USING looked
            WHERE r.repair_id = looked.repair_id AND r.repaired_at < horizon
            RETURNING (r.repaired_at AT TIME ZONE 'UTC')::date AS day, r.kind
        ), counted AS (
            INSERT INTO refold.forgotten AS f (day, what, kind, number)
            SELECT day, 'repairs', kind, count(*) FROM gone GROUP BY 1, 3
            ON CONFLICT ON CONSTRAINT forgotten_pkey DO UPDATE SET number = f.number + excluded.number
        )
        SELECT CASE WHEN count(*) = forget.many AND max(repaired_at) < horizon THEN max(repair_id) END INTO upto FROM looked;
    WHEN 'incidents' THEN
        horizon := clock_timestamp() - make_interval(days => days.incident_days);
        WITH looked AS MATERIALIZED (
            SELECT i.incident_id, i.detected_at FROM refold.incidents AS i
            WHERE i.incident_id > forget.after ORDER BY i.incident_id LIMIT forget.many
        ), gone AS (
            DELETE FROM refold.incidents AS i USING looked
            WHERE i.incident_id = looked.incident_id AND i.resolved_at < horizon
            RETURNING (i.detected_at AT TIME ZONE 'UTC')::date AS day, i.kind,
                      extract(epoch FROM i.detected_at - i.started_at) AS detecting,
                      extract(epoch FROM i.resolved_at - i.detected_at) AS recovering
        ), counted AS (
            INSERT INTO refold.forgotten AS f (day, what, kind, number, detecting, recovering)
            SELECT day, 'incidents', kind, count(*), sum(detecting), sum(recovering) FROM gone GROUP BY 1, 3
            ON CONFLICT ON CONSTRAINT forgotten_pkey DO UPDATE SET
                number = f.number + excluded.number,
                detecting = f.detecting + excluded.detecting,
                recovering = f.recovering + excluded.recovering
        )
        SELECT CASE WHEN count(*) = forget.many AND max(detected_at) < horizon THEN max(incident_id) END INTO upto FROM looked;
    WHEN 'letters' THEN
        -- Only released dead letters of builds that stay: the event of a waiting or dropped one is missing from a table.
        horizon := clock_timestamp() - make_interval(days => days.repair_days);
        WITH looked AS MATERIALIZED (
            SELECT d.dead_letter_id, d.first_failed_at FROM refold.dead_letters AS d
            WHERE d.dead_letter_id > forget.after ORDER BY d.dead_letter_id LIMIT forget.many
        ), gone AS (
            DELETE FROM refold.dead_letters AS d USING looked
            WHERE d.dead_letter_id = looked.dead_letter_id AND d.state = 'released' AND d.ended_at < horizon
        )
        SELECT CASE WHEN count(*) = forget.many AND max(first_failed_at) < horizon THEN max(dead_letter_id) END INTO upto
        FROM looked;
    END CASE;
    RETURN upto;
END
$$;

COMMENT ON FUNCTION refold.forget(text, bigint, integer)
    IS 'Delete a portion of old records: rejected, repairs, incidents, or letters (released ones).';
