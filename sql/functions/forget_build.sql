-- Delete the rows that pages and audits have added for a build. They have no foreign key, whose check would cost a page
-- 0.08 ms.
CREATE OR REPLACE FUNCTION refold.forget_build() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    DELETE FROM refold.cursors WHERE build_id = OLD.build_id;
    DELETE FROM refold.checksum_changes WHERE build_id = OLD.build_id;
    DELETE FROM refold.proofs WHERE build_id = OLD.build_id;
    DELETE FROM refold.proof_hours WHERE build_id = OLD.build_id;
    DELETE FROM refold.latency_totals WHERE build_id = OLD.build_id;
    RETURN NULL;
END
$$;
