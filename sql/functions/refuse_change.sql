-- The log is append-only, for its owner too. The guard is on rows as well as on statements, because a subscription only
-- fires triggers on rows.
CREATE OR REPLACE FUNCTION refold.refuse_change() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF TG_OP IN ('UPDATE', 'DELETE') AND refold.restoring() THEN
        RETURN coalesce(NEW, OLD);
    END IF;
    -- refold.chill_step moves ids of purged events from the ledger to the cold ledger.
    IF TG_OP = 'DELETE' AND TG_TABLE_NAME = 'event_ids' AND current_user = 'refold_owner'
       AND current_setting('refold.releasing', true) = 'on' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '% on %.% refused: the log is append-only', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = CASE TG_OP
                  WHEN 'INSERT' THEN 'Append through refold.append(jsonb), or INSERT into refold.events itself.'
                  ELSE 'Append a correcting event instead (a new id), and let the projections count it.'
              END;
END
$$;
