-- A subscription that brings rows of another log, or ledger, brings another cluster's coordinates: a cursor would
-- skip such an event, and an id without its event would keep that out.
CREATE OR REPLACE FUNCTION refold.refuse_replicated() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    -- What the log's own trigger brings has come with its event. And `pg_restore --disable-triggers` leaves a trigger
    -- for replicas behind as one for everybody.
    IF pg_trigger_depth() > 1 OR current_setting('session_replication_role') <> 'replica' THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '%.% takes no replicated rows', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = 'Leave refold''s schema out of the subscription; append through refold.append(jsonb).';
END
$$;
