-- The limits of metadata for who comes by INSERT or COPY; refold.append answers for each event instead.
-- No CHECK: `refold recover` writes events of the time before a limit once more, under new coordinates.
CREATE OR REPLACE FUNCTION refold.refuse_beyond_limits() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    problem text := refold.metadata_problem(NEW.metadata);
BEGIN
    -- What is put back is what the ledger knows, also of the time before a limit.
    IF problem IS NOT NULL AND NOT refold.restoring() THEN
        RAISE EXCEPTION 'metadata of event % %', quote_literal(left(NEW.event_id, 60)), problem
            USING ERRCODE = 'check_violation', CONSTRAINT = 'events_metadata_limits',
                  HINT = 'refold.append answers for each event, and takes the others.';
    END IF;
    RETURN NEW;
END
$$;
