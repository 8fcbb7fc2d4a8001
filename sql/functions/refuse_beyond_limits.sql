-- Enforce the limits of metadata for INSERT and COPY; refold.append answers for each event instead.
-- Not a CHECK: `refold recover` rewrites events from before the limit under new coordinates.
CREATE OR REPLACE FUNCTION refold.refuse_beyond_limits() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    problem text := refold.metadata_problem(NEW.metadata);
BEGIN
    -- An event that is restored is in the ledger, and may be from before the limit.
    IF problem IS NOT NULL AND NOT refold.restoring() THEN
        RAISE EXCEPTION 'metadata of event % %', quote_literal(left(NEW.event_id, 60)), problem
            USING ERRCODE = 'check_violation', CONSTRAINT = 'events_metadata_limits',
                  HINT = 'Use refold.append, which answers for each event and stores the valid ones.';
    END IF;
    RETURN NEW;
END
$$;
