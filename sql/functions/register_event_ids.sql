-- Register the ids of new events in the ledger, however they were written: a statement with an id that exists already fails
-- as a whole. Ids are inserted in order, so that two batches cannot deadlock.
CREATE OR REPLACE FUNCTION refold.register_event_ids() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
AS $$
DECLARE
    stranger text;
    many bigint;
BEGIN
    IF TG_RELID <> 'refold.events'::regclass THEN
        RAISE EXCEPTION 'refold.register_event_ids is the trigger of refold.events' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF coalesce(current_setting('refold.restoring', true), '') = 'on' AND refold.restoring() THEN
        -- Restored events must be in the ledger, with the same content and position; others are refused.
        SELECT n.event_id INTO stranger
        FROM arrived AS n LEFT JOIN refold.event_ids AS k USING (event_id)
        WHERE (k.digest, k.position)
              IS DISTINCT FROM (refold.digest(n.user_id, n.action, n.ts, n.metadata, n.version), n.position)
        LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'the ledger knows no such event: %', stranger
                USING ERRCODE = 'integrity_constraint_violation',
                      HINT = 'Copy the rows as they were, with txid, position and recorded_at.';
        END IF;
        DELETE FROM refold.lost_events AS l USING arrived AS n WHERE l.event_id = n.event_id;
        RETURN NULL;
    END IF;
    INSERT INTO refold.event_ids (event_id, digest, position)
    SELECT n.event_id, refold.digest(n.user_id, n.action, n.ts, n.metadata, n.version), n.position
    FROM arrived AS n
    ORDER BY n.event_id;
    GET DIAGNOSTICS many = ROW_COUNT;
    -- Record large statements, by which room is prepared for the next (refold.room_wanted); others cost one comparison.
    IF many >= 1000 THEN
        INSERT INTO refold.batches (events)
        SELECT many FROM refold.settings AS s WHERE many >= s.segment_size / 20;
    END IF;
    RETURN NULL;
END
$$;
