-- What pages add has no foreign key, whose check would cost each of them 0.08 ms: it goes with its build.
CREATE OR REPLACE FUNCTION refold.forget_build() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    DELETE FROM refold.cursors WHERE build_id = OLD.build_id;
    DELETE FROM refold.checksum_changes WHERE build_id = OLD.build_id;
    RETURN NULL;
END
$$;
