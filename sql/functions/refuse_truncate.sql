-- A TRUNCATE has no rows: the capture's events would say that they are still there.
CREATE OR REPLACE FUNCTION refold.refuse_truncate() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'TRUNCATE of %.% refused: the capture % records deleted rows, and TRUNCATE shows none',
        TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_ARGV[0]
        USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = 'Use DELETE, or add "truncate" to the operations of the capture.';
END
$$;
