-- Readers find new events by txid and position; an event that sets its own could be skipped. Ids of captured rows are
-- reserved: an event under such an id would keep the true one out.
CREATE OR REPLACE FUNCTION refold.refuse_forgery() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF refold.restoring() THEN
        RETURN NEW;
    END IF;
    IF starts_with(NEW.event_id, 'capture:') AND current_user <> 'refold_capture' THEN
        RAISE EXCEPTION 'the id % is reserved for events of captured tables', quote_literal(left(NEW.event_id, 60))
            USING ERRCODE = 'check_violation', CONSTRAINT = 'events_reserved_id',
                  HINT = 'Choose ids that do not begin with "capture:".';
    END IF;
    RAISE EXCEPTION 'only the database sets txid and position of an event'
        USING ERRCODE = 'generated_always',
              HINT = CASE current_setting('session_replication_role')
                  WHEN 'replica' THEN 'The log takes no replicated rows: append through refold.append(jsonb).'
                  ELSE 'Leave both columns out of the INSERT or COPY.'
              END;
END
$$;
