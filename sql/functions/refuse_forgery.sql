-- Readers find new events by txid and position; an event that sets its own could be skipped.
CREATE OR REPLACE FUNCTION refold.refuse_forgery() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF refold.restoring() THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'only the database sets txid and position of an event'
        USING ERRCODE = 'generated_always',
              HINT = CASE current_setting('session_replication_role')
                  WHEN 'replica' THEN 'The log takes no replicated rows: append through refold.append(jsonb).'
                  ELSE 'Leave both columns out of the INSERT or COPY.'
              END;
END
$$;
