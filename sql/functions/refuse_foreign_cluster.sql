-- Hold the cursors of a database from another cluster, and while `refold recover` rewrites them: a worker that ran before
-- the restore, or of an older version, must not move them meanwhile.
CREATE OR REPLACE FUNCTION refold.refuse_foreign_cluster() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF (SELECT system_identifier FROM refold.settings)
       IS DISTINCT FROM (SELECT system_identifier FROM pg_control_system()) THEN
        RAISE EXCEPTION 'cursors cannot move: this database was restored from another cluster'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Run `refold recover`.';
    END IF;
    RETURN NEW;
END
$$;
