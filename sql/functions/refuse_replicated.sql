-- Rows of another log or ledger, which a subscription brings, have the coordinates of another cluster. A cursor could skip
-- such an event, and an id without its event would keep the event out.
CREATE OR REPLACE FUNCTION refold.refuse_replicated() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    -- Allow a row from the log's own trigger, which comes with its event. (`pg_restore --disable-triggers` turns a
    -- trigger for replicas into one that always fires.)
    IF pg_trigger_depth() > 1 OR current_setting('session_replication_role') <> 'replica' THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '%.% takes no replicated rows', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = 'Leave refold''s schema out of the subscription; append through refold.append(jsonb).';
END
$$;
