-- In another number of buckets nothing that is in the cold ledger would be found.
CREATE OR REPLACE FUNCTION refold.refuse_new_buckets() RETURNS trigger
LANGUAGE plpgsql
SET search_path = refold, pg_catalog, pg_temp
AS $$
BEGIN
    IF NEW.cold_buckets IS DISTINCT FROM OLD.cold_buckets AND EXISTS (SELECT FROM refold.cold_ids) THEN
        RAISE EXCEPTION 'the number of buckets of the cold ledger stays once ids are in them'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN NEW;
END
$$;
