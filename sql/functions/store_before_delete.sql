-- Store the event of a row that is deleted before a backfill has read it. The backfill may store it at the same time:
-- then it is in the log, with the same content.
CREATE OR REPLACE FUNCTION refold.store_before_delete(capture text, made refold.parsed_event, raw text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF made.reason IS NULL THEN
        PERFORM refold.store_captured(ARRAY[made]);
    ELSE
        PERFORM refold.set_aside(capture, made.reason, raw);
    END IF;
EXCEPTION WHEN unique_violation THEN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a backfill has just stored the event of a row that is deleted'
            USING ERRCODE = 'serialization_failure',
                  HINT = 'Retry the whole transaction; READ COMMITTED resolves such races by itself.';
    END IF;
END
$$;

COMMENT ON FUNCTION refold.store_before_delete(text, refold.parsed_event, text)
    IS 'Store the event of a row that is deleted before a backfill has read it.';
